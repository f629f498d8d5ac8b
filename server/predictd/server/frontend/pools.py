"""What a front end knows of a pool: its queues, its arena, and the workers that answer."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from mmap import mmap
from typing import Protocol
from weakref import WeakKeyDictionary

from predictd.server.control.memory import GrowthRequest, SegmentAdded, SegmentRetired
from predictd.server.control.message import Message
from predictd.server.errors import OverloadedError
from predictd.server.frontend.answers import WorkerMemory
from predictd.server.frontend.queues import TicketQueues
from predictd.server.transport.allocator import Block, SegmentShape
from predictd.server.transport.arena import Arena
from predictd.server.transport.claims import claimed_tickets
from predictd.server.transport.records import PIPE_BUF_BYTES, RELEASE_STRUCT

RETRY_WRITE_SECONDS = 0.005
_RELEASE = struct.Struct(RELEASE_STRUCT)

Send = Callable[[Message, list[int]], None]


@dataclass(slots=True)
class WorkerLink:
    """A worker whose answers come: its memory, its claims, and the way to give blocks back."""

    id: int
    pool: int
    release_fd: int
    claims: mmap
    memory: WorkerMemory = field(default_factory=WorkerMemory)
    unreleased: bytearray = field(default_factory=bytearray)

    retry: asyncio.TimerHandle | None = None

    def release(self, records: bytes | bytearray) -> None:
        """Give blocks back, later if the worker does not read now."""
        self.unreleased += records
        if self.retry is None:
            self._flush()

    def _flush(self) -> None:
        self.retry = None
        while self.unreleased:
            try:
                written = os.write(self.release_fd, self.unreleased[:PIPE_BUF_BYTES])
            except BlockingIOError:
                self.retry = asyncio.get_running_loop().call_later(RETRY_WRITE_SECONDS, self._flush)
                return
            except BrokenPipeError:
                # It is dead, as WorkerGone is about to tell: nobody needs its blocks any more.
                self.unreleased.clear()
                return
            del self.unreleased[:written]

    def close(self) -> None:
        """The worker is gone. Its memory is unmapped when the last view of it is dropped."""
        if self.retry is not None:
            self.retry.cancel()
        os.close(self.release_fd)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Growth for so many bytes was refused, after all who came before."""

    size_bytes: int
    at: int
    reason: str


class Growing(Protocol):
    """An arena, as far as its growth goes. See `Arena`."""

    def plan_growth(self, size_bytes: int, *, least: bool = False) -> SegmentShape | None:
        """What to add; None at the limit."""

    def create_segment(self, shape: SegmentShape) -> tuple[int, int]:
        """Make a segment: its number and its descriptor. Raises OSError."""

    def open_segment(self, segment: int) -> None:
        """Every reader has mapped the segment."""


class ArenaGrowth:
    """Grows the arenas of all pools, one segment at a time, by leave of the supervisor."""

    def __init__(self, frontend: int, send: Send) -> None:
        self._frontend = frontend
        self._send = send
        # A segment is in use once every worker of its pool has mapped it, which one that is stopped does not: the pools
        # do not wait for each other. Of the supervisor one thing is asked at a time.
        self._locks: WeakKeyDictionary[Growing, asyncio.Lock] = WeakKeyDictionary()
        self._asking = asyncio.Lock()
        self._turns = itertools.count()
        self._refusals: WeakKeyDictionary[Growing, _Refusal] = WeakKeyDictionary()
        self._granted: asyncio.Future[str | None] | None = None
        self._usable: dict[tuple[int, int], asyncio.Future[None]] = {}

    async def allocate(self, pool: int, arena: Arena, size_bytes: int) -> Block:
        """A block, once the arena has grown.

        Raises:
            OverloadedError: The arena or the machine's memory is at its limit.
        """
        lock = self._locks.setdefault(arena, asyncio.Lock())
        came = next(self._turns)
        while True:
            await lock.acquire()
            block = arena.allocate(size_bytes)
            if block is not None:
                lock.release()
                return block
            if (reason := self._refused(arena, size_bytes, came)) is not None:
                lock.release()
                block = arena.allocate_larger(size_bytes)
                if block is None:
                    raise OverloadedError(reason, limit="memory")
                return block
            # A task of its own, which holds the lock to its end: the supervisor's answer to a client that
            # has left must not be taken for the answer to the next one.
            growth = asyncio.get_running_loop().create_task(self._grow(pool, arena, size_bytes))
            growth.add_done_callback(partial(_grown, lock))
            try:
                await asyncio.shield(growth)
            except OverloadedError:
                block = arena.allocate_larger(size_bytes)
                if block is None:
                    raise
                return block
            finally:
                # The refusal knows this frame, and the task knows the refusal: such a ring would keep the request.
                del growth

    async def grow(self, pool: int, arena: Growing, size_bytes: int) -> None:
        """Add a segment with blocks of a size to an arena.

        Raises:
            OverloadedError: The arena or the machine's memory is at its limit.
        """
        async with self._locks.setdefault(arena, asyncio.Lock()):
            await self._grow(pool, arena, size_bytes)

    def _refused(self, arena: Arena, size_bytes: int, came: int) -> str | None:
        """What was said to one who asked for as little while this one waited: those who wait need not ask in turn."""
        refusal = self._refusals.get(arena)
        if refusal is None or size_bytes < refusal.size_bytes or came > refusal.at:
            return None
        return refusal.reason

    def granted(self, refusal: str | None) -> None:
        """The supervisor answered."""
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(refusal)

    def usable(self, pool: int, segment: int) -> None:
        """Every worker of the pool mapped the segment."""
        future = self._usable.get((pool, segment))
        if future is not None and not future.done():
            future.set_result(None)

    def retired(self, pool: int, segment: int) -> None:
        """An arena does without a segment from now on: have it unmapped by the workers."""
        self._send(SegmentRetired(seq=0, owner=self._frontend, pool=pool, segment=segment), [])

    async def _grow(self, pool: int, arena: Growing, size_bytes: int) -> None:
        try:
            async with self._asking:
                segment, mapped = await self._add(pool, arena, size_bytes)
        except OverloadedError as error:
            self._refusals[arena] = _Refusal(size_bytes, next(self._turns), str(error))
            raise
        await mapped
        del self._usable[pool, segment]
        arena.open_segment(segment)

    async def _add(self, pool: int, arena: Growing, size_bytes: int) -> tuple[int, asyncio.Future[None]]:
        """Make a segment and send it around; gives its number, and what is done when it can be used."""
        shape = arena.plan_growth(size_bytes)
        if shape is None:
            raise OverloadedError(
                f"no request memory is left for {size_bytes} bytes (arena_limit)", limit="memory"
            )
        refusal = await self._ask(shape)
        least = arena.plan_growth(size_bytes, least=True)
        if refusal is not None and least is not None and least != shape:
            shape = least
            refusal = await self._ask(shape)
        if refusal is not None:
            raise OverloadedError(refusal, limit="memory")
        try:
            segment, fd = arena.create_segment(shape)
        except OSError as error:
            raise OverloadedError(
                f"{shape.size_bytes} bytes of memory cannot be had: {error.strerror}", limit="memory"
            ) from error
        mapped = self._usable[pool, segment] = asyncio.get_running_loop().create_future()
        try:
            self._send(
                SegmentAdded(
                    seq=0,
                    owner=self._frontend,
                    pool=pool,
                    segment=segment,
                    block_bytes=shape.block_bytes,
                    blocks=shape.blocks,
                ),
                [fd],
            )
        finally:
            os.close(fd)
        return segment, mapped

    async def _ask(self, shape: SegmentShape) -> str | None:
        """Ask the supervisor whether there may be such a segment. Returns why not, or None."""
        self._granted = asyncio.get_running_loop().create_future()
        self._send(GrowthRequest(size_bytes=shape.size_bytes), [])
        return await self._granted


def _grown(lock: asyncio.Lock, growth: asyncio.Task[None]) -> None:
    lock.release()
    if not growth.cancelled():
        growth.exception()  # Nobody else looks at it when the client has left.


def release_blocks(
    workers: Mapping[int, WorkerLink], frontend: int, releases: Mapping[tuple[int, int, int], int]
) -> None:
    """Give answers back, with one write a worker.

    Args:
        workers: Those that live.
        frontend: Our id.
        releases: How many answers were read, by worker, segment and block.
    """
    records: dict[int, bytearray] = {}
    for (worker, segment, block), count in releases.items():
        records.setdefault(worker, bytearray()).extend(_RELEASE.pack(frontend, segment, block, count))
    for worker, joined in records.items():
        link = workers.get(worker)
        if link is not None:
            link.release(joined)


class PoolLink:
    """Queues of a pool, and the arena for its requests.

    Attributes:
        out: Tickets of this front end that are not completed, by the level of their queue.
        mirrored_out: Those of its other half.
        lanes: That are ready in the pool.
        changed_ns: When a worker last came or went: who has waited since before then teaches nothing about waits.
    """

    def __init__(self, pool: int, name: str, queues: TicketQueues, arena: Arena) -> None:
        self.id = pool
        self.name = name
        self.queues = queues
        self.arena = arena
        # Arrays, for the other half looks at the one and writes the other.
        self.out = array("I", bytes(4 * (queues.levels + 1)))
        self.mirrored_out = array("I", self.out)
        self.lanes = 0
        self.changed_ns = 0

    def ahead(self, level: int, workers: Iterable[WorkerLink]) -> int:
        """Requests that are served before one that came now: those that wait, and those that run.

        Tickets of other front ends that a leader has read and left are not seen.

        Args:
            level: Of its queue.
            workers: Of all pools.
        """
        own = sum(self.out[: level + 1]) + sum(self.mirrored_out[: level + 1])
        if self.queues.frontends == 1:
            return own
        claimed = sum(claimed_tickets(worker.claims) for worker in workers if worker.pool == self.id)
        return max(own, self.queues.waiting(level) + claimed)
