"""The HTTP server: requests, whatever comes instead of them, and their answers."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from tests.unit.observe.http_world import parse_head, run, world

GOOD = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


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
