"""The HTTP server and clients that take their time, are too many or leave; and its own end."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

import h11
import pytest

from predictd.server.observe.http import HttpServer, Request, Response
from tests.unit.observe.http_world import hello, listen, run, world

GOOD = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


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
        async with world(idle_timeout_seconds=0.5) as it:
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
        async with world({"/large": large}, idle_timeout_seconds=0.5) as it:
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
        async with world(idle_timeout_seconds=0.5) as it:
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
