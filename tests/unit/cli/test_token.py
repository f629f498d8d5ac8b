"""`predictd token new`, and the options by which commands show a token."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from predictd.server.access.identity import Identity, Role
from predictd.server.access.tokens import Credential, digest_of, parse_tokens
from predictd.server.cli.main import predictd
from predictd.server.cli.trust import Trust, trust_options


def new(*words: str) -> Result:
    return CliRunner().invoke(predictd, ["token", "new", *words])


def who(path: Path, token: str) -> Identity | None:
    return parse_tokens(path.read_bytes()).find(Credential(digest_of(token.strip())))


def test_tokens_are_added_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    first = new("--name", "a", "--role", "infer", "--model", "res*", "--model", "m", "--tokens", str(path))
    assert path.stat().st_mode & 0o777 == 0o640 & ~0o022
    path.write_text(path.read_text().rstrip("\n"))
    second = new(
        "--name", "b", "--role", "observe", "--role", "control", "--expires-in", "1h", "--tokens", str(path)
    )
    assert who(path, first.output) == Identity("a", frozenset({Role.INFER}), ("res*", "m"))
    found = who(path, second.output)
    assert found is not None
    assert (found.name, found.roles) == ("b", frozenset({Role.OBSERVE, Role.CONTROL}))
    assert found.expires_unix_seconds == pytest.approx(time.time() + 3600, abs=60)
    assert first.output.strip() not in path.read_text()


def test_without_a_file_the_entry_is_printed(tmp_path: Path) -> None:
    token, _, entry = new("--name", "a", "--role", "infer").output.partition("\n")
    path = tmp_path / "t"
    path.write_text(entry)
    assert who(path, token) == Identity("a", frozenset({Role.INFER}))


def test_what_would_not_be_understood_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    new("--name", "a", "--role", "infer", "--tokens", str(path))
    before = path.read_bytes()
    again = new("--name", "a", "--role", "infer", "--tokens", str(path))
    assert (again.exit_code, again.output) == (1, f"Error: {path}: two entries have the name 'a'\n")
    assert new("--name", "", "--role", "infer", "--tokens", str(path)).exit_code == 1
    assert new("--name", "b", "--role", "admin", "--tokens", str(path)).exit_code == 2
    assert new("--name", "b", "--tokens", str(path)).exit_code == 2
    assert path.read_bytes() == before
    nowhere = new("--name", "a", "--role", "infer", "--tokens", str(tmp_path / "no" / "t"))
    assert nowhere.output == f"Error: {tmp_path}/no/t: no such file or directory\n"


def trusting(*words: str, **environment: str) -> Trust | str:
    """What a command is handed, or told."""
    handed: list[Trust] = []

    @click.command
    @trust_options
    def command(trust: Trust) -> None:
        handed.append(trust)

    result = CliRunner().invoke(command, words, env=environment)
    return handed[0] if handed else result.output.splitlines()[-1]


def test_options_and_variables_say_how_to_encrypt_and_what_to_show(tmp_path: Path) -> None:
    ca, token = tmp_path / "ca.pem", tmp_path / "token"
    ca.write_bytes(b"ca")
    token.write_text("predictd_x\n")
    assert trusting() == Trust()
    assert trusting("--tls") == Trust(tls=True)
    assert trusting("--tls-ca", str(ca), "--token-file", str(token)) == Trust(
        tls=True, ca=b"ca", token="predictd_x"
    )
    assert trusting(
        PREDICTD_TLS_CA=str(ca), PREDICTD_TOKEN_FILE=str(token), PREDICTD_TLS_SERVER_NAME="n"
    ) == Trust(tls=True, ca=b"ca", server_name="n", token="predictd_x")
    assert trusting("--tls-server-name", "n") == Trust(tls=True, server_name="n")
    pair = ("--tls-certificate", "c", "--tls-key", "k")
    named = {"PREDICTD_CLIENT_CERTIFICATE": "c", "PREDICTD_CLIENT_KEY": "k", "PREDICTD_TLS": "1"}
    # Not those of a daemon's own, which may stand in the same environment.
    own = {"PREDICTD_TLS_CERTIFICATE": "x", "PREDICTD_TLS_KEY": "y"}
    assert trusting(**named, **own) == trusting("--tls", *pair)
    assert trusting("--tls", *pair) == Trust(tls=True, certificate=Path("c"), key=Path("k"))


@pytest.mark.parametrize(
    "words",
    [
        ("models", "--grpc", "models.example:8001"),
        ("health", "--grpc", "10.0.0.1:8001"),
        ("top", "--http", "models.example:8002"),
    ],
)
def test_a_token_is_not_sent_in_the_clear_to_another_machine(words: tuple[str, ...], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("predictd_x")
    result = CliRunner().invoke(predictd, [*words, "--token-file", str(token)])
    assert result.output == f"Error: {words[2]}: a token is sent over TLS only, or to this machine\n"
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:///run/x"):
        Trust(token="t").check_token(address)
    Trust(token="t", tls=True).check_token(words[2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--tls-key", "k", "--tls"),
            "--tls-certificate and --tls-key are of no use without each other",
        ),
        (("--tls-ca", "/nowhere"), "/nowhere: no such file or directory"),
        (("--token-file", "/dev/null"), "/dev/null: it holds no token"),
    ],
)
def test_what_does_not_go_together_is_said(words: tuple[str, ...], said: str) -> None:
    found = trusting(*words)
    assert isinstance(found, str)
    assert said in found
