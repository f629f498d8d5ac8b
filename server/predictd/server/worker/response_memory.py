"""The worker's response arena: one block a batch, given back by the front ends that read it."""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from collections.abc import Callable

from predictd.server.control.memory import GrowthRequest, SegmentAdded, SegmentRetired
from predictd.server.control.message import Message
from predictd.server.transport.allocator import Block, SegmentShape, size_class
from predictd.server.transport.arena import Arena
from predictd.server.transport.records import RECORD_BYTES, RELEASE_STRUCT

_RELEASE = struct.Struct(RELEASE_STRUCT)
# The answer to a growth request comes from the supervisor's event loop and one acknowledgement a front end.
GROWTH_TIMEOUT_SECONDS = 5.0

Send = Callable[[Message, list[int]], None]


class NoResponseMemoryError(Exception):
    """No block can be had for an answer. The message says which limit is reached."""


class ResponseMemory:
    """Owned by the run loop; the control thread only delivers the supervisor's answers to `granted` and `usable`."""

    def __init__(
        self, worker: int, pool: int, limit_bytes: int, keep_ns: int, release_fd: int, send: Send
    ) -> None:
        self._worker = worker
        self._pool = pool
        self._arena = Arena("predictd-responses", limit_bytes, keep_ns)
        self._limit_bytes = limit_bytes
        self._release_fd = release_fd
        self._send = send
        self._reserved: dict[int, int] = {}
        self._held: dict[tuple[int, int], tuple[Block, dict[int, int]]] = {}
        self._answer = threading.Event()
        self._refusal: str | None = None
        self._usable: set[int] = set()
        self._unmapped: set[int] = set()
        self._poll = select.poll()
        self._poll.register(release_fd, select.POLLIN)

    @property
    def total_bytes(self) -> int:
        """Bytes of the arena."""
        return self._arena.total_bytes

    def granted(self, refusal: str | None) -> None:
        """Control thread: the supervisor answered a growth request."""
        self._refusal = refusal
        self._answer.set()

    def usable(self, segment: int) -> None:
        """Control thread: every front end mapped the segment."""
        self._usable.add(segment)
        self._answer.set()

    def block(self, size_bytes: int) -> Block:
        """Take a block, growing the arena or waiting for releases where that helps.

        Raises:
            NoResponseMemoryError: Neither helps.
        """
        block = self._arena.allocate(size_bytes)
        if block is not None:
            return block
        self.collect_releases()
        self._open_mapped()
        block = self._arena.allocate(size_bytes)
        if block is not None:
            return block
        refusal = self._grow(size_bytes)
        block = self._allocate_any(size_bytes)
        while block is None and self._held:
            # Every front end copies answers out before it waits on a client, so blocks come back by themselves.
            if not self._poll.poll(GROWTH_TIMEOUT_SECONDS * 1000):
                break
            self.collect_releases()
            block = self._allocate_any(size_bytes)
        if block is None:
            self.give_back(pressed=True)
            raise NoResponseMemoryError(refusal or "the front ends do not release answers")
        return block

    def reserve(self, lane: int, size_bytes: int) -> None:
        """Have a block for an answer of a lane from now on, however rarely it comes.

        Raises:
            NoResponseMemoryError: There is none now.
        """
        self._reserved[lane] = size_class(size_bytes)
        self.discard(self.block(size_bytes))

    def forget_lane(self, lane: int) -> None:
        """Nothing is reserved for a lane any more."""
        self._reserved.pop(lane, None)

    def give_back(self, *, pressed: bool = False) -> None:
        """Do without the memory that was not needed lately. Called now and then, between runs.

        Args:
            pressed: There was none when some was needed: give back whatever can be spared.
        """
        self.collect_releases()
        reserved = dict.fromkeys(self._reserved.values(), 1)
        for segment in self._arena.give_back(time.monotonic_ns(), pressed=pressed, reserved=reserved):
            self._usable.discard(segment)
            self._send(SegmentRetired(seq=0, owner=self._worker, pool=self._pool, segment=segment), [])

    def _allocate_any(self, size_bytes: int) -> Block | None:
        return self._arena.allocate(size_bytes) or self._arena.allocate_larger(size_bytes)

    def view(self, block: Block) -> memoryview:
        """The block's bytes, writable."""
        return self._arena.view(block)

    def hold(self, block: Block, answers: dict[int, int]) -> None:
        """Keep a block until each front end has released its number of answers."""
        self._held[block.segment, block.index] = (block, answers)

    def discard(self, block: Block) -> None:
        """Give back a block that nobody was told of."""
        self._arena.free(block)

    def forget_frontend(self, frontend: int) -> None:
        """A dead front end releases everything."""
        for key, (block, answers) in list(self._held.items()):
            answers.pop(frontend, None)
            if not answers:
                del self._held[key]
                self._arena.free(block)

    def collect_releases(self) -> None:
        """Take back what front ends have released."""
        while True:
            try:
                data = os.read(self._release_fd, 1024 * RECORD_BYTES)
            except BlockingIOError:
                return
            for frontend, segment, index, count in _RELEASE.iter_unpack(data):
                self._release(frontend, segment, index, count)

    def _release(self, frontend: int, segment: int, index: int, count: int) -> None:
        held = self._held.get((segment, index))
        if held is None:
            return
        block, answers = held
        left = answers.get(frontend, 0) - count
        if left > 0:
            answers[frontend] = left
            return
        answers.pop(frontend, None)
        if not answers:
            del self._held[segment, index]
            self._arena.free(block)

    def _grow(self, size_bytes: int) -> str | None:
        """Add a segment for blocks of `size_bytes`. Returns why it could not, or None."""
        if self._unmapped:
            return "the front ends do not map new memory"
        shape = self._arena.plan_growth(size_bytes)
        if shape is None:
            return f"the response arena is at its limit of {self._limit_bytes} bytes (arena_limit)"
        refusal = self._ask(shape)
        least = self._arena.plan_growth(size_bytes, least=True)
        if refusal is not None and least is not None and least != shape:
            shape = least
            refusal = self._ask(shape)
        if refusal is not None:
            return refusal
        try:
            segment, fd = self._arena.create_segment(shape)
        except OSError as error:
            return f"shared memory of {shape.size_bytes} bytes cannot be had: {error.strerror}"
        self._answer.clear()
        try:
            self._send(
                SegmentAdded(
                    seq=0,
                    owner=self._worker,
                    pool=self._pool,
                    segment=segment,
                    block_bytes=shape.block_bytes,
                    blocks=shape.blocks,
                ),
                [fd],
            )
        finally:
            os.close(fd)
        self._unmapped.add(segment)
        while segment not in self._usable:
            if not self._answer.wait(GROWTH_TIMEOUT_SECONDS):
                return "the front ends do not map new memory"
            self._answer.clear()
        self._open_mapped()
        return None

    def _open_mapped(self) -> None:
        """Use what every front end has mapped by now, be it later than it was waited for."""
        for segment in self._unmapped & self._usable:
            self._unmapped.remove(segment)
            self._arena.open_segment(segment)

    def _ask(self, shape: SegmentShape) -> str | None:
        """Ask the supervisor whether there may be such a segment. Returns why not, or None."""
        self._answer.clear()
        self._send(GrowthRequest(size_bytes=shape.size_bytes), [])
        return (
            self._refusal if self._answer.wait(GROWTH_TIMEOUT_SECONDS) else "the supervisor does not answer"
        )
