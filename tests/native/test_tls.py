"""TLS: who is let in, by which certificate, and how a new one is taken."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from predictd.server.bench.frames import ACK, PING, PREFACE, SETTINGS, frame
from tests.fixtures.processes import free_port
from tests.native.serving import SERVICE, Served, failure, run, serving


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    chain: bytes
    key: bytes


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._openssl(*_NEW_KEY, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        self.certificate = (folder / "ca.pem").read_bytes()

    def sign(self, name: str, alternatives: str) -> Pair:
        self._count += 1
        key, request, chain = (f"{self._count}.{kind}" for kind in ("key", "csr", "pem"))
        self._openssl(*_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        (self._folder / "extensions").write_text(f"subjectAltName={alternatives}\n")
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", "extensions", "-out", chain),
        )
        return Pair((self._folder / chain).read_bytes(), (self._folder / key).read_bytes())

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=self._folder, check=True, capture_output=True)


_NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _hello() -> bytes:
    """The first message of a handshake."""
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), sent, server_hostname="localhost"
        ).do_handshake()
    return sent.read()


_HELLO = _hello()
_LOCAL = "DNS:localhost,IP:127.0.0.1"


@asynccontextmanager
async def encrypted(pair: Pair, client_ca: bytes = b"") -> AsyncIterator[tuple[Served, str]]:
    """A server with TLS, and its address."""
    async with serving() as served:
        address = f"127.0.0.1:{free_port()}"
        served.server.use_certificate(pair.chain, pair.key, client_ca)
        served.server.add_secure_port(address)
        yield served, address


async def echo(address: str, root: bytes, client: Pair | None = None, message: bytes = b"x") -> bytes:
    key, chain = (client.key, client.chain) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
        return bytes(await call(message, timeout=20))


def handshake(address: str, root: bytes, newest: ssl.TLSVersion, protocol: str = "h2") -> str | None:
    """What a client and the server agree on; a client that offers no protocol learns whether it is heard."""
    context = ssl.create_default_context(cadata=root.decode())
    if protocol:
        context.set_alpn_protocols([protocol])
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 20) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        if not protocol:
            secure.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, bytes(8)))
            with suppress(ConnectionResetError):
                while received := secure.recv(1000):
                    if frame(PING, ACK, 0, bytes(8)) in received:
                        return "unasked"
        return secure.selected_alpn_protocol()


def test_messages_of_any_size_pass_encrypted(authority: Authority) -> None:
    async def test() -> None:
        async with encrypted(authority.sign("server", _LOCAL)) as (_, address):
            for size in (0, 1, 16_384, 100_000, 1_000_000):
                message = bytes(range(256)) * (size // 256 + 1)
                assert await echo(address, authority.certificate, message=message[:size]) == message[:size]

    run(test)


def test_old_tls_and_other_protocols_are_refused(authority: Authority) -> None:
    async def test() -> None:
        async with encrypted(authority.sign("server", _LOCAL)) as (_, address):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                agreed = await asyncio.to_thread(handshake, address, authority.certificate, version)
                assert agreed == "h2"
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(
                    handshake, address, authority.certificate, ssl.TLSVersion.TLSv1_3, "http/1.1"
                )
            with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ValueError)):
                await asyncio.to_thread(handshake, address, authority.certificate, ssl.TLSVersion.TLSv1_1)
            newest = ssl.TLSVersion.TLSv1_3
            assert await asyncio.to_thread(handshake, address, authority.certificate, newest, "") is None
            # What is no TLS at all.
            reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 20)
            with suppress(ConnectionResetError):
                await reader.read()
            writer.close()
            assert await echo(address, authority.certificate) == b"x"

    run(test)


def test_clients_that_do_not_go_on_cost_nothing(authority: Authority) -> None:
    async def test() -> None:
        async with encrypted(authority.sign("server", _LOCAL)) as (_, address):
            host, _, port = address.rpartition(":")
            with ExitStack() as stack:
                for said in (b"", b"\x16\x03\x01\x02\0", _HELLO):
                    silent = stack.enter_context(socket.create_connection((host, int(port)), 20))
                    silent.sendall(said)
                assert await echo(address, authority.certificate) == b"x"
                before = time.process_time()
                await asyncio.sleep(1)
                # A loop that turns without end takes all that there is, which on a busy machine is little.
                assert time.process_time() - before < 0.2
                assert await echo(address, authority.certificate) == b"x"

    run(test)


def test_clients_that_do_not_go_on_do_not_hold_up_the_end(authority: Authority) -> None:
    async def test() -> None:
        async with encrypted(authority.sign("server", _LOCAL)) as (served, address):
            host, _, port = address.rpartition(":")
            with ExitStack() as stack:
                for said in (b"", _HELLO):
                    silent = stack.enter_context(socket.create_connection((host, int(port)), 20))
                    silent.sendall(said)
                assert await echo(address, authority.certificate) == b"x"
                async with asyncio.timeout(30):
                    await served.server.stop(300)

    run(test)


def test_clients_that_must_show_a_certificate_are_known_by_it(authority: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        pair = authority.sign("server", _LOCAL)
        async with encrypted(pair, authority.certificate) as (served, address):
            client = authority.sign("client one", "DNS:one.example,URI:spiffe://example/one,IP:10.0.0.1")
            assert await echo(address, authority.certificate, client) == b"x"
            assert served.seen["identity"] == {
                "x509_common_name": [b"client one"],
                "x509_subject_alternative_name": [b"one.example", b"spiffe://example/one", b"10.0.0.1"],
            }
            assert (await failure(echo(address, authority.certificate))).code() is grpc.StatusCode.UNAVAILABLE
            stranger = Authority(tmp_path).sign("client one", "DNS:one.example")
            error = await failure(echo(address, authority.certificate, stranger))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            # The port without TLS knows nobody.
            await served.unary(b"")
            assert served.seen["identity"] == {}

    run(test)


def test_a_new_certificate_is_shown_to_those_who_come_later(authority: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        other = Authority(tmp_path)
        async with encrypted(authority.sign("server", _LOCAL)) as (served, address):
            credentials = grpc.ssl_channel_credentials(authority.certificate)
            async with grpc.aio.secure_channel(address, credentials) as channel:
                call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
                assert await call(b"before") == b"before"
                new = other.sign("server", _LOCAL)
                served.server.use_certificate(new.chain, new.key)
                assert await echo(address, other.certificate) == b"x"
                assert await call(b"as before") == b"as before"
            with pytest.raises(ValueError, match="the key cannot be used, or is not that of the certificate"):
                served.server.use_certificate(new.chain, authority.sign("other", _LOCAL).key)
            with pytest.raises(ValueError, match="the certificate cannot be used"):
                served.server.use_certificate(b"nothing", new.key)
            with pytest.raises(ValueError, match="the clients' authorities cannot be used"):
                served.server.use_certificate(new.chain, new.key, b"nothing")
            assert await echo(address, other.certificate) == b"x"

    run(test)
