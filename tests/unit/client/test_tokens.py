"""Tokens: where they come from, to whom they go, and where they never turn up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from predictd.client import (
    AsyncClient,
    Client,
    PermissionDeniedError,
    Prediction,
    TokenFile,
    UnauthenticatedError,
    tokens,
)
from predictd.client.calls import PREDICT, Ask
from tests.fixtures.prediction_service import FakeService, in_order, serving

if TYPE_CHECKING:
    from pathlib import Path

ONE = {"x": [1]}
SECRET = "s3cret.t-0_k/e+n~=="


@pytest.mark.parametrize(
    ("token", "shown"),
    [("t1", "Bearer t1"), (lambda: "t2", "Bearer t2"), (None, None), (SECRET, f"Bearer {SECRET}")],
)
def test_every_call_shows_the_token(make_client: Any, token: Any, shown: str | None) -> None:
    service = FakeService(stream=in_order)
    with serving(service) as target, make_client(target, token=token) as client:
        client.predict("echo", ONE)
        list(client.predict_many("echo", [ONE]))
    assert service.tokens == [shown, shown]


def test_a_token_in_a_file_is_read_again(make_client: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    service = FakeService(stream=in_order)
    source = TokenFile(file, reread_seconds=0)
    with serving(service) as target, make_client(target, token=source) as client:
        client.predict("echo", ONE)
        for change in (lambda: file.write_text(""), file.unlink, lambda: file.write_text("  second \n")):
            change()
            client.predict("echo", ONE)
        list(client.predict_many("echo", [ONE]))
    assert service.tokens == ["Bearer first"] * 3 + ["Bearer second"] * 2
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "nothing")


def test_a_token_in_a_file_is_not_read_for_every_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenFile(file, reread_seconds=3600)
    file.write_text("second")
    assert source() == "first"


@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        ("", ValueError, "the token is empty"),
        (f"{SECRET}\nx", ValueError, "the token has characters that a header cannot carry"),
        (f"é{SECRET}", ValueError, "the token has characters that a header cannot carry"),
        (SECRET.encode(), TypeError, "a token is a string, not bytes"),
        (lambda: None, TypeError, "a token is a string, not NoneType"),
    ],
)
def test_what_is_no_token_is_refused_and_not_repeated(
    make_client: Any, token: Any, error: type[Exception], message: str
) -> None:
    service = FakeService(stream=in_order)
    with serving(service) as target, make_client(target, token=token) as client:
        for ask in (client.predict, lambda *one: list(client.predict_many(one[0], [one[1]]))):
            with pytest.raises(error, match=f"^{message}$"):
                ask("echo", ONE)
    assert not service.tokens


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("127.0.0.1:8001", True),
        ("127.8.9.1:8001", True),
        ("localhost:8001", True),
        ("localhost", True),
        ("[::1]:8001", True),
        ("dns:localhost:8001", True),
        ("dns:///localhost:8001", True),
        ("dns://8.8.8.8/localhost:8001", False),
        ("ipv4:127.0.0.1:8001,127.0.0.1:8002", True),
        ("ipv4:127.0.0.1:8001,10.0.0.1:8002", False),
        ("ipv6:[::1]:8001", True),
        ("ipv6:[::2]:8001", False),
        ("unix:///run/predictd.sock", True),
        ("unix:predictd.sock", True),
        ("unix-abstract:predictd", True),
        ("10.0.0.1:8001", False),
        ("model.example:8001", False),
        ("localhost.model.example:8001", False),
        ("127.0.0.1.model.example:8001", False),
        ("passthrough:///model.example:8001", False),
        ("xds:///127.0.0.1", False),
    ],
)
def test_a_token_leaves_the_machine_only_encrypted_or_where_that_is_allowed(target: str, here: bool) -> None:
    assert tokens.stays_here(target) == here
    for client in (Client, AsyncClient):
        client(target, token=SECRET, allow_plaintext_token=True)
        client(target)
        if here:
            client(target, token=SECRET)
        else:
            with pytest.raises(ValueError, match="without tls the token could be read on its way") as caught:
                client(target, token=SECRET)
            assert SECRET not in str(caught.value)


def test_a_proxy_gets_nothing_of_what_is_for_this_machine(
    make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with serving(FakeService()) as target:
        port = target.rpartition(":")[2]
        for address in (target, f"localhost:{port}", f"dns:///localhost:{port}"):
            with make_client(address, token=SECRET) as client:
                assert isinstance(client.predict("echo", ONE), Prediction)


def test_no_token_is_shown(make_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for code, error in (
        ("UNAUTHENTICATED", UnauthenticatedError),
        ("PERMISSION_DENIED", PermissionDeniedError),
    ):
        with (
            serving(FakeService()) as target,
            make_client(target, token=SECRET) as client,
            pytest.raises(error) as caught,
        ):
            client.predict(f"fail-{code}", ONE)
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__cause__}"
    assert SECRET not in caplog.text
    here = "127.0.0.1:1"
    assert SECRET not in f"{Client(here, token=SECRET)!r} {AsyncClient(here, token=SECRET)!r}"
    asked = Ask(PREDICT, b"", 1.0, (("authorization", f"Bearer {SECRET}"),))
    assert SECRET not in repr(asked)
