"""What a front end knows of a pool: its queues, its arena, and the workers that answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap

from predictd.server.control.messages import GrowthRequest, Message, SegmentAdded
from predictd.server.errors import OverloadedError
from predictd.server.frontend.answers import WorkerMemory
from predictd.server.transport.allocator import Block
from predictd.server.transport.arena import Arena
from predictd.server.transport.records import PIPE_BUF_BYTES

RETRY_WRITE_SECONDS = 0.005

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

    def release(self, records: bytes) -> bool:
        """Give blocks back. False when some have to wait because the worker does not read."""
        self.unreleased += records
        while self.unreleased:
            try:
                written = os.write(self.release_fd, self.unreleased[:PIPE_BUF_BYTES])
            except BlockingIOError:
                return False
            del self.unreleased[:written]
        return True

    def close(self) -> None:
        """The worker is gone. Its memory is unmapped when the last view of it is dropped."""
        os.close(self.release_fd)


class ArenaGrowth:
    """Grows the arenas of all pools, one segment at a time, by leave of the supervisor."""

    def __init__(self, frontend: int, send: Send) -> None:
        self._frontend = frontend
        self._send = send
        self._lock = asyncio.Lock()
        self._granted: asyncio.Future[str | None] | None = None
        self._usable: dict[tuple[int, int], asyncio.Future[None]] = {}

    async def allocate(self, pool: int, arena: Arena, size_bytes: int) -> Block:
        """A block, once the arena has grown.

        Raises:
            OverloadedError: The arena or the machine's memory is at its limit.
        """
        async with self._lock:
            block = arena.allocate(size_bytes)
            if block is None:
                await self._grow(pool, arena, size_bytes)
                block = arena.allocate(size_bytes)
        if block is None:
            raise OverloadedError("the new request memory was taken at once; try again")
        return block

    def granted(self, refusal: str | None) -> None:
        """The supervisor answered."""
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(refusal)

    def usable(self, pool: int, segment: int) -> None:
        """Every worker of the pool mapped the segment."""
        future = self._usable.get((pool, segment))
        if future is not None and not future.done():
            future.set_result(None)

    async def _grow(self, pool: int, arena: Arena, size_bytes: int) -> None:
        shape = arena.plan_growth(size_bytes)
        if shape is None:
            raise OverloadedError(f"no request memory is left for {size_bytes} bytes (arena_limit)")
        loop = asyncio.get_running_loop()
        self._granted = loop.create_future()
        self._send(GrowthRequest(size_bytes=shape.size_bytes), [])
        # Shielded: a client that leaves must not leave the answer to be taken for the next request's.
        refusal = await asyncio.shield(self._granted)
        if refusal is not None:
            raise OverloadedError(refusal)
        try:
            segment, fd = arena.create_segment(shape)
        except OSError as error:
            raise OverloadedError(
                f"{shape.size_bytes} bytes of memory cannot be had: {error.strerror}"
            ) from error
        usable = self._usable[pool, segment] = loop.create_future()
        usable.add_done_callback(lambda _: self._open(arena, pool, segment))
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
        await asyncio.shield(usable)
        arena.open_segment(segment)

    def _open(self, arena: Arena, pool: int, segment: int) -> None:
        self._usable.pop((pool, segment), None)
        arena.open_segment(segment)


class PoolLink:
    """Queues of a pool by priority, and the arena for its requests."""

    def __init__(self, pool: int, name: str, queue_fds: list[int], arena_limit_bytes: int) -> None:
        self.id = pool
        self.name = name
        self.arena = Arena(f"predictd-requests-{pool}", arena_limit_bytes)
        self._queue_fds = queue_fds
        self._backlog: list[tuple[int, bytes]] = []

    @property
    def priorities(self) -> int:
        """Levels; 1 is served first."""
        return len(self._queue_fds)

    def level(self, priority: int) -> int:
        """The level of a request's priority: 0 means the middle one."""
        return min(priority, self.priorities) if priority > 0 else (self.priorities + 1) // 2

    def enqueue(self, ticket: bytes, level: int) -> None:
        """Write a ticket.

        Raises:
            BlockingIOError: The queue is full.
        """
        os.write(self._queue_fds[level - 1], ticket)

    def put_back(self, ticket: bytes, level: int) -> None:
        """Write a ticket that was accepted before: if the queue is full it waits here."""
        self._backlog.append((level, ticket))
        self._flush()

    def _flush(self) -> None:
        while self._backlog:
            level, ticket = self._backlog[0]
            try:
                self.enqueue(ticket, level)
            except BlockingIOError:
                asyncio.get_running_loop().call_later(RETRY_WRITE_SECONDS, self._flush)
                return
            del self._backlog[0]

    def close(self) -> None:
        """The pool is gone."""
        self._backlog.clear()
        for fd in self._queue_fds:
            os.close(fd)
        self._queue_fds = []
