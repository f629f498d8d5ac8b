"""Messages that do not end cost the calls that send them, once they take too much memory, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from predictd.server.errors import OverloadedError
from predictd.server.frontend.uploads import Uploads

LIMIT = 1000


class Call:
    """A call whose client sends its message when told to."""

    def __init__(self) -> None:
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        return await self.message


class Rig:
    def __init__(self, limit_bytes: int = LIMIT) -> None:
        self.size_bytes = 0
        self.trims = 0
        self.uploads = Uploads(limit_bytes, lambda: self.size_bytes, self._trim)

    def _trim(self) -> None:
        self.trims += 1

    async def reading(self, *, of_stream: bool = False) -> tuple[Call, asyncio.Task[object]]:
        call: Any = Call()
        task = asyncio.ensure_future(self.uploads.read(call, of_stream=of_stream))
        await asyncio.sleep(0)
        return call, task

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.uploads.check()
            for _ in range(5):
                await asyncio.sleep(0)


def test_a_message_that_takes_long_is_refused_once_there_is_no_memory_for_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        _, slow = await rig.reading()
        await rig.look(5)
        assert not slow.done()
        rig.size_bytes = LIMIT + 1
        _, quick = await rig.reading()
        await rig.look()
        with pytest.raises(OverloadedError, match=r"more than 1000 bytes \(upload_limit\)"):
            await slow
        assert not quick.done(), "it has only begun"
        assert not slow.cancelled()
        rig.size_bytes = LIMIT
        await rig.look(3)
        assert not quick.done()
        quick.cancel()

    asyncio.run(scenario())


def test_messages_go_before_streams_and_of_these_the_last_to_wait() -> None:
    async def scenario() -> None:
        rig = Rig()
        streams = [(await rig.reading(of_stream=True))[1] for _ in range(100)]
        messages = [(await rig.reading())[1] for _ in range(60)]
        await rig.look()
        rig.size_bytes = LIMIT + 1
        await rig.look()
        assert all(message.done() for message in messages)
        assert [stream.done() for stream in streams] == [False] * 96 + [True] * 4
        await asyncio.gather(*messages, *streams[96:], return_exceptions=True)
        for stream in streams[:96]:
            stream.cancel()

    asyncio.run(scenario())


def test_what_comes_in_time_is_read_and_counts_no_more() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.size_bytes = LIMIT + 1
        call, reading = await rig.reading()
        await rig.look()
        call.message.set_result(b"whole")
        assert await reading == b"whole"
        await rig.look(3)

    asyncio.run(scenario())


def test_a_call_that_its_client_cancels_is_cancelled() -> None:
    async def scenario() -> None:
        rig = Rig()
        _, reading = await rig.reading()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(scenario())


def test_without_a_limit_nobody_is_refused() -> None:
    async def scenario() -> None:
        rig = Rig(0)
        rig.size_bytes = 2**60
        _, reading = await rig.reading()
        await rig.look(3)
        assert not reading.done()
        reading.cancel()

    asyncio.run(scenario())


def test_memory_is_given_back_when_it_has_grown_and_not_each_time() -> None:
    rig = Rig()
    grown = []
    for size_mib in (10, 100, 100, 100, 100, 200, 60, 60, 200):
        rig.size_bytes = size_mib * 2**20
        grown.append([rig.uploads.trims() for _ in range(100)].count(True))
    # Again after one look and after three, as what was in use may be free by then.
    assert grown == [0, 1, 1, 0, 1, 1, 0, 0, 1]
