"""What an operator is told of who gets in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from predictd.server.config.settings import Settings
from predictd.server.config.units import Address
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.doors import http_tls, open_doors
from predictd.server.supervise.ports import ReservedPort
from tests.fixtures.certificates import Authority

OPEN = "gRPC on 0.0.0.0:1: whoever reaches it may infer{}; --tokens, --tls-client-ca and --tls-certificate change that"


@pytest.fixture(name="sockets")
def _sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with closing(socket.socket()) as private, closing(socket.socket()) as public:
        private.bind(("127.0.0.1", 0))
        public.bind(("0.0.0.0", 0))
        yield private, public


@pytest.fixture(scope="module", name="given")
def _given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pki")
    authority = Authority(folder)
    pair = authority.sign("a", days=30)
    pair.key.chmod(0o600)
    tokens = folder / "tokens.toml"
    tokens.touch()
    return {
        "tls": {"tls_certificate": pair.certificate, "tls_key": pair.key},
        "tokens": {"tokens": tokens},
        "ca": {"tls_client_ca": authority.certificate},
    }


def port(host: str) -> ReservedPort:
    return ReservedPort(Address(host, 1), (f"{host}:1",), ())


@pytest.mark.parametrize(
    ("host", "words", "more", "warnings"),
    [
        ("127.0.0.1", (), {}, []),
        ("0.0.0.0", (), {}, [OPEN.format(", in the clear")]),
        ("0.0.0.0", (), {"allow_control": True}, [OPEN.format(" and give commands, in the clear")]),
        ("0.0.0.0", ("tls",), {}, [OPEN.format("")]),
        (
            "0.0.0.0",
            ("tokens",),
            {},
            ["gRPC on 0.0.0.0:1: tokens can be read on the way; --tls-certificate encrypts"],
        ),
        ("0.0.0.0", ("tls", "tokens"), {}, []),
        ("0.0.0.0", ("tls", "ca"), {}, []),
        ("127.0.0.1", ("tokens",), {}, []),
    ],
)
def test_an_open_door_is_one_line(
    host: str,
    words: tuple[str, ...],
    more: dict[str, Any],
    warnings: list[str],
    sockets: tuple[socket.socket, socket.socket],
    given: dict[str, dict[str, Any]],
) -> None:
    settings = Settings(**{key: value for word in words for key, value in given[word].items()}, **more)
    assert open_doors(settings, port(host), sockets[:1], Credentials(settings)) == warnings


@pytest.mark.parametrize(("words", "open_to_all"), [((), True), (("tls",), True), (("tls", "ca"), False)])
def test_a_status_page_that_all_may_read_is_one_line(
    words: tuple[str, ...],
    open_to_all: bool,
    sockets: tuple[socket.socket, socket.socket],
    given: dict[str, dict[str, Any]],
) -> None:
    settings = Settings(**{key: value for word in words for key, value in given[word].items()})
    line = (
        "HTTP on 127.0.0.1:8002: whoever reaches it may read metrics and the status page, with lines of the log; "
        "--tokens and --tls-client-ca change that"
    )
    found = open_doors(settings, port("127.0.0.1"), sockets[1:], Credentials(settings))
    assert found == [line] * open_to_all


@pytest.mark.parametrize(
    ("wanted", "encrypted"), [("auto", (False, True)), ("on", (True, True)), ("off", (False, False))]
)
def test_http_is_encrypted_beyond_the_loopback_unless_told_otherwise(
    wanted: str,
    encrypted: tuple[bool, bool],
    sockets: tuple[socket.socket, socket.socket],
    given: dict[str, dict[str, Any]],
) -> None:
    settings = Settings(http_tls=wanted, **given["tls"], **given["tokens"])
    credentials = Credentials(settings)
    found = tuple(http_tls(settings, (each,), credentials) is not None for each in sockets)
    assert found == encrypted
    warned = any(
        "HTTP on" in line for line in open_doors(settings, port("127.0.0.1"), sockets[1:], credentials)
    )
    assert warned == (not encrypted[1])
    clear = Settings(http_tls="auto")
    assert http_tls(clear, sockets[1:], Credentials(clear)) is None


def test_a_file_that_is_not_there_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"tokens: .*/missing: no such file or directory"):
        Credentials(Settings(tokens=tmp_path / "missing"))
