from __future__ import annotations

import asyncio
import logging
import random
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import h11
import pytest

from predictd.server.observe.http import Handler, HttpServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

GOOD = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response(f"{request.path}|{request.query}|{request.headers.get('accept', '')}".encode())


def listen(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen()
    return sock


class Client:
    """Raw bytes out, raw bytes in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """Everything until the server closes. Tests hang, and so fail, where it does not."""
        return await self.reader.read()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, headers = parse_head(head)
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(first.split(" ")[1]), headers


class World:
    """A server on a free port, and clients that are closed with it."""

    def __init__(self, server: HttpServer, address: tuple[Any, ...]) -> None:
        self.server = server
        self.address = address
        self._clients: list[Client] = []

    async def connect(self, buffer_bytes: int = 1 << 16) -> Client:
        client = Client(*await asyncio.open_connection(*self.address[:2], limit=buffer_bytes))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        client = await self.connect()
        client.send(data)
        return await client.rest()

    async def conversation_ended(self) -> None:
        await asyncio.wait(set(self.server._conversations), return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        await self.server.close()


@asynccontextmanager
async def world(
    routes: dict[str, Handler] | None = None, sock: socket.socket | None = None, **options: Any
) -> AsyncIterator[World]:
    sock = sock or listen()
    address = sock.getsockname()
    server = HttpServer(routes or {"/hello": hello}, **options)
    await server.serve(sock)
    made = World(server, address)
    try:
        yield made
    finally:
        await made.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test, and fail for anything that the event loop could only report."""
    reports: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        await asyncio.wait_for(main(), 30)

    asyncio.run(guarded())
    assert not reports


def test_a_get_reaches_its_handler_with_path_query_and_headers() -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(b"GET /hello?a=1&b HTTP/1.1\r\nHost: x\r\nAccept: text/a\r\nAccept: b\r\n\r\n")
            status, headers, body = await client.answer()
            assert (status, body) == (200, b"/hello|a=1&b|text/a, b")
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert headers["cache-control"] == "no-store"
            assert headers["date"].endswith("gmt")
            assert "connection" not in headers

    run(main)


def test_a_connection_serves_many_requests_pipelined_ones_too() -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            one = b"GET /hello?%d HTTP/1.1\r\nHost: x\r\n\r\n"
            client.send(one % 1 + one % 2)
            client.send(one % 3)
            assert [(await client.answer())[2] for _ in range(3)] == [
                b"/hello|1|",
                b"/hello|2|",
                b"/hello|3|",
            ]
            client.send(one % 4)
            assert (await client.answer())[2] == b"/hello|4|"

    run(main)


def test_a_request_may_come_one_byte_at_a_time() -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in GOOD:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.rest()).endswith(b"/hello||")

    run(main)


def test_head_gives_the_headers_of_get_without_the_body() -> None:
    async def main() -> None:
        async with world() as it:
            raw = await it.ask(b"HEAD /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, body = raw.partition(b"\r\n\r\n")
            status, headers = parse_head(head)
            assert (status, headers["content-length"], body) == (200, "8", b"")

    run(main)


@pytest.mark.parametrize("target", [b"http://example.org/hello?q", b"https://example.org:1/hello?q"])
def test_a_whole_url_as_target_is_understood(target: bytes) -> None:
    async def main() -> None:
        async with world() as it:
            raw = await it.ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert raw.endswith(b"/hello|q|")

    run(main)


def test_http_1_0_is_answered_and_closed() -> None:
    async def main() -> None:
        async with world() as it:
            raw = await it.ask(b"GET /hello HTTP/1.0\r\n\r\n")
            assert raw.startswith(b"HTTP/1.1 200 ")
            assert raw.endswith(b"/hello||")

    run(main)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /hello/ HTTP/1.1", 404),
        (b"GET /../hello HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"CONNECT /hello HTTP/1.1", 405),
        (b"DELETE /hello HTTP/1.1", 405),
        (b"get /hello HTTP/1.1", 405),
        (b"GET /" + b"x" * 8000 + b" HTTP/1.1", 404),
    ],
)
def test_a_wrong_path_or_method_is_refused_and_the_connection_goes_on(
    request_line: bytes, status: int
) -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(request_line + b"\r\nHost: x\r\n\r\n")
            got, headers, _ = await client.answer()
            assert got == status
            assert headers.get("allow") == ("get, head" if status == 405 else None)
            client.send(GOOD)
            assert (await client.rest()).endswith(b"/hello||")

    run(main)


@pytest.mark.parametrize(
    "announced",
    [
        b"Content-Length: 5\r\n",
        b"Content-Length: 10\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 99999999999999999999\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_body_is_refused_before_it_comes(method: bytes, announced: bytes) -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(method + b" /hello HTTP/1.1\r\nHost: x\r\n" + announced + b"\r\n")
            status, headers, _ = await client.answer()
            assert status == 413
            assert headers["connection"] == "close"
            client.send(b"x" * 10_000)
            assert await client.rest() == b""

    run(main)


def test_a_refusal_is_not_lost_to_a_client_that_is_still_sending() -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            # More than the server reads at once: closing with unread data would reset the connection.
            client.send(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
            await client.writer.drain()
            assert (await client.answer())[0] == 413
            assert await client.rest() == b""

    run(main)


def test_an_empty_body_is_no_body() -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + GOOD)
            assert (await client.rest()).count(b"HTTP/1.1 200 ") == 2

    run(main)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\n\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
        (b"GET /hel\x00lo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000, 431),
    ],
)
def test_malformed_input_is_refused_and_the_next_client_served(data: bytes, status: int) -> None:
    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(data)
            got, headers, body = await client.answer()
            assert (got, headers["connection"], body) == (status, "close", b"malformed request\n")
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_of_any_kind_harms_nobody_else(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [b"GET ", b"/hello", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x", b":", b"\x00", b"\xff" * 9]
    garbage = b"".join(rng.choice([*pieces, rng.randbytes(rng.randrange(40))]) for _ in range(60))

    async def main() -> None:
        async with world() as it:
            client = await it.connect()
            client.send(garbage)
            client.writer.write_eof()
            answers = await client.rest()
            assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)


@pytest.mark.parametrize("sent", [b"", b"GET /hel", b"GET /hello HTTP/1.1\r\nHost: x\r\n"])
def test_a_silent_or_slow_client_is_let_go(sent: bytes) -> None:
    async def main() -> None:
        async with world(idle_timeout_seconds=0.05) as it:
            client = await it.connect()
            client.send(sent)
            assert await client.rest() == b""

    run(main)


def test_a_client_that_drips_a_header_is_let_go_in_the_same_time() -> None:
    async def main() -> None:
        async with world(idle_timeout_seconds=0.1) as it:
            client = await it.connect()
            client.send(b"GET /hello HTTP/1.1\r\n")
            dripping = asyncio.ensure_future(client.rest())
            while not dripping.done():
                client.send(b"A: b\r\n")
                await asyncio.wait([dripping], timeout=0.02)
            with suppress(ConnectionError):
                assert dripping.result() == b""

    run(main)


def test_a_connection_is_let_go_when_idle_between_requests() -> None:
    async def main() -> None:
        async with world(idle_timeout_seconds=0.05) as it:
            client = await it.connect()
            client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer())[0] == 200
            assert await client.rest() == b""

    run(main)


def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    size = 64 * 1024 * 1024

    async def large(_: Request) -> Response:
        return Response(b"x" * size)

    async def main() -> None:
        async with world({"/large": large}, idle_timeout_seconds=0.1) as it:
            client = await it.connect(buffer_bytes=1024)
            client.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            await it.conversation_ended()
            with suppress(ConnectionError):
                assert len(await client.rest()) < size

    run(main)


def test_a_client_that_leaves_while_it_is_answered_is_forgotten() -> None:
    async def main() -> None:
        reached, leave = asyncio.Event(), asyncio.Event()

        async def slow(_: Request) -> Response:
            reached.set()
            await leave.wait()
            return Response(b"x" * 10_000_000)

        async with world({"/slow": slow, "/hello": hello}) as it:
            client = await it.connect()
            client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await reached.wait()
            client.writer.transport.abort()
            leave.set()
            await it.conversation_ended()
            assert not it.server._conversations
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)


def test_connections_past_the_limit_are_refused_until_one_ends() -> None:
    async def main() -> None:
        async with world(connections_max=2) as it:
            first = await it.connect()
            await it.connect()
            third = await it.connect()
            status, headers, body = await third.answer()
            assert (status, headers["connection"], body) == (503, "close", b"too many connections\n")
            assert await third.rest() == b""
            await first.close()
            await it.conversation_ended()
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)


def test_a_failing_handler_gives_500_without_its_reason_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_: Request) -> Response:
        raise KeyError("secret")

    async def main() -> None:
        async with world({"/broken": broken, "/hello": hello}) as it:
            client = await it.connect()
            client.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer())[::2] == (500, b"internal error\n")
            client.send(GOOD)
            assert (await client.rest()).endswith(b"/hello||")

    with caplog.at_level(logging.ERROR):
        run(main)
    assert [record.getMessage() for record in caplog.records] == ["the handler of /broken failed"]
    assert "secret" in caplog.text


def test_an_impossible_response_ends_only_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def impossible(_: Request) -> Response:
        return Response(b"", headers=(("X-Bad", "a\r\nb"),))

    async def main() -> None:
        async with world({"/bad": impossible, "/hello": hello}) as it:
            assert await it.ask(b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], h11.LocalProtocolError)


def test_close_ends_idle_connections_and_lets_busy_ones_finish() -> None:
    async def main() -> None:
        reached, finish = asyncio.Event(), asyncio.Event()

        async def slow(_: Request) -> Response:
            reached.set()
            await finish.wait()
            return Response(b"done")

        async with world({"/slow": slow}) as it:
            idle = await it.connect()
            half = await it.connect()
            half.send(b"GET /sl")
            busy = await it.connect()
            busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await reached.wait()
            closing = asyncio.ensure_future(it.server.close(grace_seconds=20))
            assert await idle.rest() == b""
            assert await half.rest() == b""
            assert not closing.done()
            with pytest.raises(ConnectionRefusedError):
                await it.connect()
            finish.set()
            _, headers, body = await busy.answer()
            assert (headers["connection"], body) == ("close", b"done")
            assert await busy.rest() == b""
            await closing

    run(main)


def test_close_at_the_moment_of_a_time_out_is_harmless() -> None:
    async def main() -> None:
        async with world(idle_timeout_seconds=0.05) as it:
            client = await it.connect()
            client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.answer()
            (conversation,) = it.server._conversations.values()
            assert conversation._reading is not None
            deadline = conversation._reading.when()
            assert deadline is not None
            closed = asyncio.Event()

            def close() -> None:
                conversation.end()
                closed.set()

            asyncio.get_running_loop().call_at(deadline, close)
            await closed.wait()
            assert await client.rest() == b""

    run(main)


def test_close_does_not_wait_for_a_handler_for_ever() -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def stuck(_: Request) -> Response:
            reached.set()
            await asyncio.Event().wait()
            return Response(b"")

        async with world({"/stuck": stuck}) as it:
            client = await it.connect()
            client.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
            await reached.wait()
            await it.server.close(grace_seconds=0.01)
            assert await client.rest() == b""

    run(main)


def test_close_before_serve_and_twice_is_harmless() -> None:
    async def main() -> None:
        server = HttpServer({})
        await server.close()
        await server.serve(listen())
        with pytest.raises(RuntimeError, match="before"):
            await server.serve(listen_closed := listen())
        listen_closed.close()
        await server.close()
        await server.close()

    run(main)


def test_ipv6_is_served() -> None:
    try:
        sock = listen(socket.AF_INET6, "::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")

    async def main() -> None:
        async with world(sock=sock) as it:
            assert (await it.ask(GOOD)).endswith(b"/hello||")

    run(main)


def test_the_defaults_are_those_of_the_design() -> None:
    server = HttpServer({})
    assert (server._idle_timeout_seconds, server._connections_max) == (30.0, 128)
