"""The HTTP server over TLS: certificates, and clients that do not finish their handshake."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from predictd.server.access.certificates import ask_clients, server_context
from predictd.server.observe.http import HttpServer, Request, Response
from tests.fixtures.certificates import Authority, Pair
from tests.unit.observe.http_world import listen

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HANDSHAKES = 3


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


async def _names(request: Request) -> Response:
    subject = [value for parts in request.certificate.get("subject", ()) for _, value in parts]
    return Response(f"hello {','.join(subject)}".encode())


def context_of(pair: Pair, authority: Authority) -> ssl.SSLContext:
    context = server_context(pair.certificate.read_bytes(), pair.key.read_bytes())
    ask_clients(context, authority.certificate.read_bytes())
    return context


def serve(
    scenario: Callable[[int], Awaitable[None]],
    tls: Callable[[], ssl.SSLContext],
    timeout: float = 30,
) -> None:
    async def main() -> None:
        reports: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        sock = listen()
        port = sock.getsockname()[1]
        server = HttpServer({"/": _names}, tls=tls, idle_timeout_seconds=timeout, connections_max=HANDSHAKES)
        await server.serve(sock)
        try:
            await asyncio.wait_for(scenario(port), 30)
        finally:
            await server.close()
        assert reports == []

    asyncio.run(main())


async def ask(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The body, and the certificate that was shown."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(ASK)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2], shown


def test_each_connection_is_shown_what_is_current_and_says_who_it_is(authority: Authority) -> None:
    pairs = [authority.sign("server", "DNS:localhost", at=name) for name in ("first", "second")]
    contexts = [context_of(pair, authority) for pair in pairs]
    job = authority.sign("job")
    current = contexts[0]

    async def scenario(port: int) -> None:
        nonlocal current
        client = ssl.create_default_context(cafile=authority.certificate)
        first = await ask(port, client)
        current = contexts[1]
        client.load_cert_chain(job.certificate, job.key)
        second = await ask(port, client)
        assert (first[0], second[0]) == (b"hello ", b"hello job")
        assert [shown for _, shown in (first, second)] == [
            ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()) for pair in pairs
        ]

    serve(scenario, lambda: current)


def test_certificates_of_strangers_end_the_connection(authority: Authority, tmp_path: Path) -> None:
    context = context_of(authority.sign("server", "DNS:localhost"), authority)
    false = Authority(tmp_path, "strangers").sign("job")

    async def scenario(port: int) -> None:
        client = ssl.create_default_context(cafile=authority.certificate)
        client.load_cert_chain(false.certificate, false.key)
        # With TLS 1.3 the client has said what it wants before the server has seen who it is.
        with suppress(OSError):
            assert (await ask(port, client))[0] == b""

    serve(scenario, lambda: context)


def test_handshakes_that_do_not_end_are_bounded_in_number_and_time(authority: Authority) -> None:
    context = context_of(authority.sign("server", "DNS:localhost"), authority)

    async def scenario(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HANDSHAKES)]
        silent[0][1].write(b"GET / HTTP/1.1\r\n\r\n")
        # No handshake: it is refused at once, and its place is free for the next.
        await silent[0][0].read()
        silent.append(await asyncio.open_connection("127.0.0.1", port))
        over, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await over.read() == b""
        writer.close()
        for reader, _ in silent[1:]:
            assert await reader.read() == b""
        client = ssl.create_default_context(cafile=authority.certificate)
        assert (await ask(port, client))[0] == b"hello "
        for _, unfinished in silent:
            unfinished.close()

    serve(scenario, lambda: context, timeout=1)
