"""Calls over the C half's connections, as gRPC's own client makes them, to Python's handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from tests.native.serving import MESSAGE_BYTES_MAX, SERVICE, Served, failure, run, serving


def test_calls_of_every_kind_are_answered() -> None:
    async def test() -> None:
        async with serving() as served:
            for size in (0, 1, 16_000, 70_000, MESSAGE_BYTES_MAX):
                message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
                assert await served.unary(message) == message
            many = served.channel.unary_stream(f"/{SERVICE}/Many")
            assert [part async for part in many(b"500")] == [str(number).encode() for number in range(500)]
            joined = served.channel.stream_unary(f"/{SERVICE}/Joined")
            assert await joined(iter([b"a", b"", b"b" * 100_000])) == b"a" + b"b" * 100_000
            await _both_ways(served)

    run(test)


async def _both_ways(served: Served) -> None:
    messages = [bytes([number % 256]) * (number * 37 % 90_000) for number in range(300)]

    async def requests() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    both = served.channel.stream_stream(f"/{SERVICE}/Both")
    assert [answer async for answer in both(requests())] == messages


def test_what_comes_with_a_call_reaches_its_handler_and_its_client() -> None:
    async def test() -> None:
        async with serving() as served:
            metadata = (("key", "a value"), ("key", "another"), ("blob-bin", b"\0\xff\1"))
            await served.unary(b"", metadata=metadata, timeout=100)
            seen = served.seen["metadata"]
            assert [pair for pair in seen if pair[0] != "user-agent"] == list(metadata)
            assert served.seen["peer"].startswith("ipv4:127.0.0.1:")
            # Clients round up.
            assert 0 < served.seen["remaining"] < 102
            await served.seen.setdefault("done", asyncio.Event()).wait()
            await served.unary(b"")
            assert served.seen["remaining"] is None
            call = served.channel.unary_unary(f"/{SERVICE}/Trailers")(b"x")
            assert await call == b"x"
            assert dict(await call.initial_metadata())["first-bin"] == b"\0\1"
            trailers = dict(await call.trailing_metadata())
            assert (trailers["last"], trailers["last-bin"]) == ("2", b"\xff\0")

    run(test)


def test_calls_that_come_to_no_good() -> None:
    async def test() -> None:
        async with serving() as served:
            text = "nothing: 100 % \n of 'ä€😀'"
            error = await failure(served.unary(text.encode(), "Abort"))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, text)
            assert dict(error.trailing_metadata())["why"] == "because"
            error = await failure(served.unary(b"", "Broken"))
            assert error.code() is grpc.StatusCode.UNKNOWN
            assert "as asked" in str(error.details())
            error = await failure(served.unary(b"", "Missing"))
            assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            error = await failure(served.unary(b"x" * (MESSAGE_BYTES_MAX + 1)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"{MESSAGE_BYTES_MAX + 1} vs. {MESSAGE_BYTES_MAX}" in str(error.details())
            error = await failure(served.unary(b"x" * 2**20, "RefusedUnread"))
            assert (error.code(), error.details()) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "not even looked at",
            )
            error = await failure(served.unary(b"", metadata=(("long", "x" * 17_000),)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            # The connection is as good as before.
            assert await served.unary(b"still here") == b"still here"

    run(test)


def test_a_deadline_and_a_client_that_leaves_end_the_handler() -> None:
    async def test() -> None:
        async with serving() as served:
            # On a busy machine it may be over before the handler has begun.
            while "begun" not in served.seen:
                error = await failure(served.unary(b"", "Forever", timeout=0.2))
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await served.seen.setdefault("cancelled", asyncio.Event()).wait()
            served.seen.clear()
            call = served.channel.unary_unary(f"/{SERVICE}/Forever")(b"")
            begun = served.seen.setdefault("begun", asyncio.Event())
            await begun.wait()
            call.cancel()
            await served.seen.setdefault("cancelled", asyncio.Event()).wait()

    run(test)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_inflated_within_the_limit(compression: grpc.Compression) -> None:
    async def test() -> None:
        async with serving() as served:
            call = served.channel.unary_unary(f"/{SERVICE}/Unary")
            assert await call(b"a" * 100_000, compression=compression) == b"a" * 100_000
            assert await call(b"", compression=compression) == b""
            bomb = b"a" * (MESSAGE_BYTES_MAX + 1)
            error = await failure(call(bomb, compression=compression))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(test)


def test_many_calls_at_once_are_kept_apart() -> None:
    async def test() -> None:
        async with serving(max_streams=50) as served:
            messages = [str(number).encode() * (number * 13 % 700) for number in range(2000)]
            assert list(await asyncio.gather(*map(served.unary, messages))) == messages

    run(test)


def test_a_stop_lets_calls_end_and_turns_away_new_ones() -> None:
    async def test() -> None:
        async with serving() as served:
            joined = served.channel.stream_unary(f"/{SERVICE}/Joined")()
            await joined.write(b"begun ")
            await served.unary(b"")
            stopping = asyncio.create_task(served.server.stop(30))
            await asyncio.sleep(0)
            await joined.write(b"before, ended behind")
            await joined.done_writing()
            assert await joined == b"begun before, ended behind"
            await stopping

    run(test)


def test_a_stop_cuts_what_does_not_end() -> None:
    async def test() -> None:
        async with serving() as served:
            call = served.channel.unary_unary(f"/{SERVICE}/Forever")(b"")
            await served.seen.setdefault("begun", asyncio.Event()).wait()
            await served.server.stop(0.1)
            assert (await failure(call)).code() is grpc.StatusCode.UNAVAILABLE
            await served.seen.setdefault("cancelled", asyncio.Event()).wait()

    run(test)
