from __future__ import annotations

import asyncio
import os

import pytest

from predictd.server.control.memory import GrowthRequest, SegmentAdded
from predictd.server.control.message import Message
from predictd.server.errors import OverloadedError
from predictd.server.frontend.pools import ArenaGrowth
from predictd.server.transport.allocator import Block, size_class
from predictd.server.transport.arena import Arena

MIB = 2**20
KEEP_NS = 60 * 10**9
SMALL_BYTES, LARGE_BYTES = MIB, 4 * MIB


class Supervisor:
    """Answers what an ArenaGrowth asks when it is told to."""

    def __init__(self) -> None:
        self.growth = ArenaGrowth(0, self._send)
        self.asked_bytes: list[int] = []
        self._segments: list[tuple[int, int]] = []

    def _send(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, GrowthRequest):
            self.asked_bytes.append(message.size_bytes)
        if isinstance(message, SegmentAdded):
            assert all(os.fstat(fd).st_size == message.block_bytes * message.blocks for fd in fds)
            self._segments.append((message.pool, message.segment))

    def acknowledge(self) -> None:
        """Every worker mapped every segment."""
        for pool, segment in self._segments:
            self.growth.usable(pool, segment)
        self._segments.clear()


async def turn() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_client_that_leaves_does_not_leave_its_grant_to_the_next() -> None:
    async def scenario() -> None:
        supervisor, arena = Supervisor(), Arena("test", 64 * MIB, KEEP_NS)
        leaves = asyncio.create_task(supervisor.growth.allocate(1, arena, SMALL_BYTES))
        await turn()
        leaves.cancel()
        stays = asyncio.create_task(supervisor.growth.allocate(1, arena, LARGE_BYTES))
        await turn()
        assert supervisor.asked_bytes == [size_class(SMALL_BYTES)]
        supervisor.growth.granted(None)
        await turn()
        supervisor.acknowledge()
        await turn()
        assert supervisor.asked_bytes == [size_class(SMALL_BYTES), size_class(LARGE_BYTES)]
        supervisor.growth.granted("the memory limit leaves no room")
        with pytest.raises(OverloadedError, match="leaves no room") as caught:
            await stays
        assert caught.value.limit == "memory"

    asyncio.run(scenario())


def test_a_refusal_that_nobody_waits_for_any_more_harms_nobody() -> None:
    async def scenario() -> Block:
        supervisor, arena = Supervisor(), Arena("test", 64 * MIB, KEEP_NS)
        leaves = asyncio.create_task(supervisor.growth.allocate(1, arena, SMALL_BYTES))
        await turn()
        leaves.cancel()
        await turn()
        supervisor.growth.granted("no")
        stays = asyncio.create_task(supervisor.growth.allocate(1, arena, SMALL_BYTES))
        await turn()
        supervisor.growth.granted(None)
        await turn()
        supervisor.acknowledge()
        return await stays

    assert asyncio.run(scenario()).size_bytes == size_class(SMALL_BYTES)


def test_who_finds_the_new_memory_taken_asks_again() -> None:
    async def scenario() -> None:
        supervisor, arena = Supervisor(), Arena("test", 64 * MIB, KEEP_NS)
        first = asyncio.create_task(supervisor.growth.allocate(1, arena, LARGE_BYTES))
        second = asyncio.create_task(supervisor.growth.allocate(1, arena, LARGE_BYTES))
        for _ in range(2):
            await turn()
            supervisor.growth.granted(None)
            await turn()
            supervisor.acknowledge()
        assert await first != await second
        assert len(supervisor.asked_bytes) == 2

    asyncio.run(scenario())


def test_those_who_wait_for_what_is_refused_are_refused_with_it() -> None:
    async def scenario() -> None:
        supervisor, arena = Supervisor(), Arena("test", 64 * MIB, KEEP_NS)
        waiting = [
            asyncio.create_task(supervisor.growth.allocate(1, arena, size_bytes))
            for size_bytes in (SMALL_BYTES, *[LARGE_BYTES] * 500)
        ]
        await turn()
        supervisor.growth.granted("no")
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(error) for error in done} == {"no"}
        assert len(supervisor.asked_bytes) == 1
        # Who comes later finds out for himself.
        later = asyncio.create_task(supervisor.growth.allocate(1, arena, LARGE_BYTES))
        await turn()
        supervisor.growth.granted(None)
        await turn()
        supervisor.acknowledge()
        assert (await later).size_bytes == size_class(LARGE_BYTES)

    asyncio.run(scenario())


def test_a_pool_whose_workers_do_not_map_its_memory_holds_up_no_other() -> None:
    async def scenario() -> None:
        supervisor = Supervisor()
        stuck = asyncio.create_task(supervisor.growth.allocate(1, Arena("a", 64 * MIB, KEEP_NS), SMALL_BYTES))
        await turn()
        other = asyncio.create_task(supervisor.growth.allocate(2, Arena("b", 64 * MIB, KEEP_NS), SMALL_BYTES))
        await turn()
        assert len(supervisor.asked_bytes) == 1, "one question at a time"
        supervisor.growth.granted(None)
        await turn()
        supervisor.growth.granted(None)
        await turn()
        supervisor.growth.usable(2, 0)
        assert (await other).size_bytes == size_class(SMALL_BYTES)
        assert not stuck.done()
        supervisor.growth.usable(1, 0)
        await stuck

    asyncio.run(scenario())
