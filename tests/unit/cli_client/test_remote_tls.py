"""What commands say where encryption keeps them from a daemon: one line, in their own options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from click.testing import CliRunner, Result

from predictd.server.cli.health import health
from predictd.server.cli.models import models
from tests.fixtures.authority import make_authority, make_certificate
from tests.fixtures.prediction_service import FakeService, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ours", "theirs"):
        make_authority(folder, authority)
    make_certificate(folder, "server", "ours", "IP:127.0.0.1")
    make_certificate(folder, "client", "ours", "DNS:client")
    return folder


def said(folder: Path, target: str, options: dict[str, str]) -> str:
    """What a command ends with that names files of a folder."""
    return complaint(CliRunner().invoke(models, ["--grpc", target, *arguments_of(folder, options)]))


def arguments_of(folder: Path, options: dict[str, str]) -> list[str]:
    return [text for option, value in options.items() for text in (option, value.format(folder=folder))]


def complaint(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--tls-ca": "{folder}/theirs.pem"}, "the server's certificate is not signed by any of --tls-ca ("),
        (
            {"--tls-ca": "{folder}/ours.pem", "--tls-server-name": "else"},
            "the server's certificate is of another name than the target's: --tls-server-name says which one",
        ),
    ],
)
def test_a_daemon_that_is_not_trusted_is_there_all_the_same(
    folder: Path, options: dict[str, str], words: str
) -> None:
    key, chain = ((folder / f"server.{end}").read_bytes() for end in ("key", "pem"))
    with serving(FakeService(), credentials=grpc.ssl_server_credentials([(key, chain)])) as target:
        line = said(folder, target, options)
    assert line.startswith(f"{target}: {words}")
    assert "start one" not in line


def test_a_daemon_that_encrypts_need_not_be_started(folder: Path) -> None:
    key, chain = ((folder / f"server.{end}").read_bytes() for end in ("key", "pem"))
    with serving(FakeService(), credentials=grpc.ssl_server_credentials([(key, chain)])) as target:
        line = said(folder, target, {})
    assert line.startswith(f"no daemon answers at {target} (")
    assert line.endswith("it may ask for TLS, or for a client certificate it trusts))")


@pytest.mark.parametrize(
    ("certificate", "key", "line"),
    [
        ("{folder}/none.pem", "{folder}/client.key", "{folder}/none.pem: no such file or directory"),
        (
            "{folder}/client.pem",
            "{folder}/server.key",
            "{folder}/server.key is not the key of {folder}/client.pem",
        ),
        (
            "{folder}/client.pem",
            "{folder}/client.pem",
            "--tls-key {folder}/client.pem: no key in PEM that is not encrypted",
        ),
        # What is no file is read but once: it may be a pipe.
        ("{folder}/client.pem", "/dev/null", "--tls-key: no key in PEM that is not encrypted"),
    ],
)
def test_files_that_do_not_fit_are_refused_before_anybody_is_asked(
    folder: Path, certificate: str, key: str, line: str
) -> None:
    options = {"--tls-certificate": certificate, "--tls-key": key}
    assert said(folder, "127.0.0.1:1", options) == line.format(folder=folder)
    asked = CliRunner().invoke(health, ["--grpc", "127.0.0.1:1", *arguments_of(folder, options)])
    assert complaint(asked) == line.format(folder=folder)
