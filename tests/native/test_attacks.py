"""Clients that cost the server more than themselves, and what bounds them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import grpc
import grpc.aio

from predictd.server.bench.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    prefixed,
)
from tests.native.frames import WRITTEN_OUT, RawClient, grpc_status, header_block, raw_client
from tests.native.hot_rig import PREDICT, PREDICT_STREAM, HotRig, call, play, predict, started, tickets, until
from tests.native.serving import Served, run, serving
from tests.native.test_connections import scenario, still_serves

_SECOND = 10**9


def test_frames_that_a_client_does_not_read_are_not_kept_without_end() -> None:
    def flood(address: str) -> None:
        host, _, port = address.rpartition(":")
        with closing(socket.socket()) as raw:
            # What the kernel keeps for the client is not what is meant.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.settimeout(30)
            raw.connect((host, int(port)))
            # SETTINGS are not acknowledged: until then a call too many is refused, and costs the client nothing.
            raw.sendall(PREFACE + frame(SETTINGS, 0, 0))
            raw.sendall(frame(HEADERS, END_HEADERS, 1, header_block(path="/test.Echo/Forever")))
            try:
                for calls in _refused_calls():
                    raw.sendall(calls)
            except (ConnectionResetError, BrokenPipeError):
                return
        raise AssertionError("the connection took all of it")

    async def test() -> None:
        async with serving(max_streams=1) as served:
            await asyncio.to_thread(flood, served.address)
            await still_serves(served)

    run(test)


def _refused_calls() -> Iterator[bytes]:
    """A million calls of a few bytes each."""
    # :method, :scheme and :path of HPACK's own table; the rest need not be there to be refused.
    short = b"\x83\x86\x84"
    for first in range(3, 2_000_003, 2000):
        streams = range(first, first + 2000, 2)
        yield b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, short) for stream in streams)


def test_calls_that_end_before_python_has_looked_are_not_kept_without_end() -> None:
    calls, at_once = 6000, 50

    def hurry(raw: RawClient) -> list[int | None]:
        """Calls whose deadline is over when they come. Gives their statuses."""
        block = header_block(path="/test.Echo/Forever", grpc_timeout="1n", much="x" * 8000)
        statuses: list[int | None] = []
        raw.send(frame(SETTINGS, 0, 0, WRITTEN_OUT))
        for first in range(0, calls, at_once):
            for stream in range(2 * first + 1, 2 * (first + at_once), 2):
                raw.send(
                    frame(HEADERS, END_HEADERS, stream, block), frame(DATA, END_STREAM, stream, prefixed(b""))
                )
            while len(statuses) < first + at_once:
                statuses.append(grpc_status(raw.until(HEADERS, END_STREAM).payload))
        return statuses

    async def test() -> None:
        async with serving() as served:
            with raw_client(served.address) as raw:
                # Here, so that Python does nothing else.
                statuses = hurry(raw)
            assert statuses[0] == 4
            assert statuses[-1] == 8, "calls are kept for Python without end"
            # Once Python has looked there is room again, and it stays.
            await _has_room(served)
            for _ in range(20):
                await still_serves(served)

    run(test)


async def _has_room(served: Served) -> None:
    """Wait until a call is not refused because of those that wait for Python."""
    while True:
        try:
            await still_serves(served)
        except grpc.aio.AioRpcError as error:
            if error.details() != "too many calls wait for the front end":
                raise
        else:
            return


def test_who_asks_too_often_and_goes_on_is_cut() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, b"", path="/test.Echo/Forever")
        try:
            for _ in range(400):
                raw.send(frame(PING, 0, 0, bytes(8)))
                time.sleep(0.05)
        except (ConnectionResetError, BrokenPipeError):
            return
        raise AssertionError("it may go on for ever")

    scenario(check, max_ping_strikes=2)


def _begin(raw: RawClient, stream: int, part: bytes, path: str = PREDICT) -> None:
    raw.call(stream, None, path=path)
    raw.send(frame(DATA, 0, stream, part))


def _request(*values: float) -> bytes:
    return prefixed(predict(*values).SerializeToString())


def test_messages_of_which_nothing_comes_keep_nobody_from_the_fast_way() -> None:
    async def played(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        with ExitStack() as stack:

            def begin_four() -> None:
                for _ in range(4):
                    raw = stack.enter_context(raw_client(rig.address))
                    # Nothing but the length: 5 bytes each.
                    _begin(raw, 1, _request(1, 2)[:5])
                    raw.send(frame(PING, 0, 0, bytes(8)))
                    raw.until(PING, ACK)

            async def mine() -> bool:
                waiting = call(rig, predict(1, 2))
                found = await tickets(pool, 1)
                worker.answer(found)
                await waiting
                return rig.mine(found) == [True]

            begin_four()
            # A busy machine may have taken the second that they have.
            while await mine():
                begin_four()
            # They are given to Python after a second, and the loop answers by itself again.
            for _ in range(200):
                if await mine():
                    return
                await asyncio.sleep(0.05)
        raise AssertionError("the loop answers nothing by itself any more")

    play(played, in_flight=8)


def test_a_stream_that_python_ends_within_a_message_ends() -> None:
    async def played(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)

        def talk(raw: RawClient) -> bytes:
            # Of an unknown shape, so Python has a part of the stream; then a part of a known one.
            raw.send(frame(SETTINGS, 0, 0, WRITTEN_OUT))
            raw.call(1, None, path=PREDICT_STREAM)
            raw.send(frame(DATA, 0, 1, _request(1, 2, 3, 4, 5, 6)))
            raw.until(DATA)
            raw.send(frame(DATA, 0, 1, _request(1, 2)[:-1]), frame(PING, 0, 0, b"all came"))
            raw.until(PING)
            begun.set()
            return raw.until(HEADERS, END_STREAM).payload

        begun = threading.Event()
        with raw_client(rig.address) as raw:
            talking = asyncio.create_task(asyncio.to_thread(talk, raw))
            worker.answer(await tickets(pool, 1))
            await until(begun.is_set)
            rig.streams.close()
            assert grpc_status(await talking) == grpc.StatusCode.UNAVAILABLE.value[0]

    play(played)
