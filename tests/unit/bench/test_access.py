"""Load over TLS and with tokens."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner

from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.bench.access import Access
from predictd.server.bench.hpack import RequestHeaders
from predictd.server.cli.bench import bench
from predictd.server.measure.engine_process import MeasureError
from tests.fixtures.self_signed import self_signed
from tests.unit.bench.harness import closed, echo, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "model.example"
TOKEN = "t" * 300


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = self_signed(tmp_path_factory.mktemp("tls"), NAME, address="127.0.0.1")
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


def credentials(folder: Path, *, mutual: bool) -> grpc.ServerCredentials:
    key, chain = ((folder / name).read_bytes() for name in ("key.pem", "certificate.pem"))
    return grpc.ssl_server_credentials([(key, chain)], chain if mutual else None, mutual)


def access(folder: Path, **more: Any) -> Access:
    return Access(tls=True, ca=str(folder / "certificate.pem"), **more)


def shown(folder: Path) -> dict[str, str]:
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


@pytest.mark.parametrize("name", ["", NAME])
def test_load_is_encrypted_and_shows_who_sends_it(folder: Path, name: str) -> None:
    seen = set()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.add(dict(context.invocation_metadata()).get("authorization"))
        return request

    bodies = [bytes(size) for size in (0, 16_380, 200_000)]
    with serving(answer, credentials=credentials(folder, mutual=True)) as target:
        mine = access(folder, server_name=name, token=TOKEN, **shown(folder))
        mine.check(target, "")
        found = closed(target, bodies, 60, [4, 4], access=mine)
    assert found.failures == []
    assert {message for _, message in found.answers} == set(bodies)
    assert seen == {f"Bearer {TOKEN}"}


def test_whoever_is_not_who_he_should_be_is_told(folder: Path) -> None:
    with serving(echo, credentials=credentials(folder, mutual=True)) as target:
        with pytest.raises(ConnectionError, match=r"certificate is not valid for 'else\.example'"):
            closed(target, [b"x"], 1, [1], access=access(folder, server_name="else.example"))
        with pytest.raises(ConnectionError):
            closed(target, [b"x"], 1, [1], access=access(folder))
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            closed(target, [b"x"], 1, [1], access=Access(tls=True))


@pytest.fixture(name="old_server")
def _old_server(folder: Path) -> Iterator[str]:
    """TLS without ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as safe:
                while safe.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)
    assert not thread.is_alive()


def test_a_server_without_http2(folder: Path, old_server: str) -> None:
    with pytest.raises(ConnectionError, match="does not offer HTTP/2"):
        closed(old_server, [b"x"], 1, [1], access=access(folder))


@pytest.mark.parametrize("length", [10, 3_500, 8_000])
def test_tokens_of_any_length_are_sent_with_each_call(length: int) -> None:
    seen: list[str] = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(str(dict(context.invocation_metadata()).get("authorization")))
        return request

    with serving(answer, ("grpc.max_metadata_size", 1 << 20)) as target:
        found = closed(target, [b"x"], 20, [2], access=Access(token="t" * length))
    assert found.failures == []
    assert seen == [f"Bearer {'t' * length}"] * len(seen)


@pytest.mark.parametrize("table_bytes", [0, 60, 200])
def test_a_server_may_have_a_smaller_table(table_bytes: int) -> None:
    with serving(echo, ("grpc.http2.hpack_table_size.decoder", table_bytes)) as target:
        found = closed(target, [b"x"], 50, [5], access=Access(token="secret"))
    assert found.failures == []
    first, others = RequestHeaders("/a.B/C", "here").blocks(table_bytes)
    assert len(others) <= len(first)


def test_a_token_is_not_shown_to_others(folder: Path) -> None:
    mine = Access(token="secret")
    assert "secret" not in f"{mine!r} {mine}"
    for near in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/p.sock"):
        mine.check(near, "")
    for target, http in (("far.example:1", ""), ("10.0.0.1:1", ""), ("127.0.0.1:1", "10.0.0.1:2")):
        with pytest.raises(MeasureError, match="a token is sent over TLS only"):
            mine.check(target, http)
    access(folder, token="secret").check("far.example:1", "https://far.example:2")


def test_files_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(MeasureError, match=re.escape(f"{empty}: no certificates of authorities")):
        Access(tls=True, ca=str(empty)).check("", "")
    other = self_signed(tmp_path, NAME)
    mixed = access(folder, certificate=str(folder / "certificate.pem"), key=str(other / "key.pem"))
    with pytest.raises(MeasureError, match="no certificate with its key"):
        mixed.check("", "")


def _model(request: bytes, context: grpc.ServicerContext) -> bytes:
    """A daemon's answer to GetModel, or to Predict."""
    assert dict(context.invocation_metadata())["authorization"] == f"Bearer {TOKEN}"
    if request != v1.GetModelRequest(model="m").SerializeToString():
        return v1.PredictResponse().SerializeToString()
    version = v1.ModelVersion(version=1)
    version.inputs.add(name="x", dtype=v1.FP32, shape=[-1, 4])
    return v1.Model(name="m", default_version=1, versions=[version]).SerializeToString()


def test_the_command_reaches_a_server_over_tls(folder: Path) -> None:
    with serving(_model, credentials=credentials(folder, mutual=True)) as target:
        certificate = folder / "certificate.pem"
        safe = ("--tls-ca", certificate, "--tls-certificate", certificate, "--tls-key", folder / "key.pem")
        more = ("--tls-server-name", NAME, "--token-file", folder / "token")
        what = ("m", "--grpc", target, "--concurrency", 2, "--for", "100ms", "--warm-up", "10ms", "--json")
        done = CliRunner().invoke(bench, [str(each) for each in (*what, *safe, *more)])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["tls"]
        (point,) = found["points"]
        assert point["answers"] > 0
        assert point["errors"] == {}
        assert TOKEN not in done.output
        alone = CliRunner().invoke(bench, [str(each) for each in (*what, *safe[:4])])
        assert "--tls-certificate and --tls-key go together" in alone.output
        in_clear = CliRunner().invoke(bench, [str(each) for each in what])
        assert "UNAVAILABLE" in in_clear.output
