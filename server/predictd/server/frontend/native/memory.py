"""Memory that the loop in C uses: its request arenas, which Python grows and shrinks, and the answers of workers."""

from __future__ import annotations

import asyncio
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from predictd.server.frontend.native.packing import Command, address, longs, numbers
from predictd.server.transport.allocator import (
    LARGEST_GROWTH_BYTES,
    SMALLEST_SEGMENT_BYTES,
    SegmentShape,
    size_class,
)
from predictd.server.transport.arena import Arena
from predictd.server.transport.memory import create_shared
from predictd.server.transport.retention import Retention

# Python's own segments of the same pool are numbered from 0.
FIRST_SEGMENT = 1 << 31
# Of what a pool may have in all, this part may be in use when this half's share grows, and by that part it may.
ARENA_PART = 2
SEGMENT_PART = 8
# After a refusal the loop does not ask again before.
ASK_AGAIN_SECONDS = 1.0
_ROW = struct.Struct("<4I")
_NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Segment:
    shape: SegmentShape
    mapping: mmap.mmap
    address: int
    keep: Any


class NativeArena:
    """Segments whose blocks the loop takes and frees.

    Args:
        command: To the loop.
        pool: Whose requests these are.
        name: Of the memory, for people.
        limit_bytes: The most that this and Python's own arena of the pool may have together.
        keep_ns: How long memory is kept that nobody needs.
        other: Python's own.
    """

    def __init__(
        self, command: Command, pool: int, name: str, limit_bytes: int, keep_ns: int, other: Arena
    ) -> None:
        self._command = command
        self._pool = pool
        self._name = name
        self._limit_bytes = limit_bytes
        self._retention = Retention(keep_ns)
        self._other = other
        self._pending: dict[int, _Segment] = {}
        self._segments: dict[int, _Segment] = {}
        self._retired: set[int] = set()
        self._next = FIRST_SEGMENT

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments, those not yet in use included."""
        return sum(
            segment.shape.size_bytes for segment in (*self._segments.values(), *self._pending.values())
        )

    def plan_growth(self, size_bytes: int, *, least: bool = False) -> SegmentShape | None:
        """As `Arena.plan_growth`. Where memory is scarce it is left to Python, which refuses in words."""
        block_bytes = size_class(size_bytes)
        left_bytes = self._limit_bytes // ARENA_PART - self._other.total_bytes - self.total_bytes
        left_bytes = min(left_bytes, self._limit_bytes // SEGMENT_PART)
        same_bytes = sum(
            segment.shape.size_bytes
            for segment in self._segments.values()
            if segment.shape.block_bytes == block_bytes
        )
        wish_bytes = max(SMALLEST_SEGMENT_BYTES, 0 if least else same_bytes)
        wish_bytes = max(block_bytes, min(wish_bytes, LARGEST_GROWTH_BYTES))
        blocks = min(wish_bytes, left_bytes) // block_bytes
        return SegmentShape(block_bytes, blocks) if blocks > 0 else None

    def create_segment(self, shape: SegmentShape) -> tuple[int, int]:
        """As `Arena.create_segment`."""
        fd, mapping = create_shared(self._name, shape.size_bytes)
        number = self._next
        self._next += 1
        self._pending[number] = _Segment(shape, mapping, *address(mapping))
        self._tell_other()
        return number, fd

    def open_segment(self, number: int) -> None:
        """Every reader has mapped the segment: the loop takes blocks of it."""
        segment = self._pending.pop(number, None)
        if segment is None:
            return
        shape = segment.shape
        self._segments[number] = segment
        self._command(
            "segment_add",
            numbers(self._pool, number, shape.blocks) + longs(shape.block_bytes, segment.address),
        )

    def give_back(self, now_ns: int, *, pressed: bool = False) -> list[int]:
        """As `Arena.give_back`: segments that are unmapped here."""
        due = self._retention.is_due(now_ns)
        if due or pressed:
            self._look(now_ns, pressed=pressed)
        if not self._retired:
            return []
        gone = [number for (number,) in struct.iter_unpack("<I", self._ask("segments_gone"))]
        for number in gone:
            del self._segments[number]
        self._retired.difference_update(gone)
        self._tell_other()
        return gone

    def _look(self, now_ns: int, *, pressed: bool) -> None:
        """Decide what can be spared."""
        shapes: dict[int, SegmentShape] = {}
        used: dict[int, int] = {}
        peaks: dict[int, int] = {}
        for number, taken, peak, _ in _ROW.iter_unpack(self._ask("arena", int(not pressed))):
            shape = self._segments[number].shape
            shapes[number], peaks[shape.block_bytes] = shape, peak
            if taken:
                used[number] = taken
        # Those that were needed again before they were gone.
        self._retired -= shapes.keys()
        if pressed:
            surplus = self._retention.pressed(shapes, used, _NOTHING, peaks)
        else:
            self._retention.ended(now_ns, peaks)
            surplus = self._retention.surplus(shapes, used, _NOTHING)
        if surplus:
            self._retired.update(surplus)
            self._ask("segments_retire", *surplus)

    def _ask(self, name: str, *values: int) -> bytes:
        return self._command(name, numbers(self._pool, *values))

    def _tell_other(self) -> None:
        self._other.limit_bytes = max(self._limit_bytes - self.total_bytes, 0)


class ResponseMemory:
    """What workers answer in, kept mapped for the loop."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._kept: dict[tuple[int, int], Any] = {}

    def add(self, worker: int, segment: int, view: memoryview, block_bytes: int, blocks: int) -> None:
        """The loop may read this from now on."""
        where, self._kept[worker, segment] = address(view)
        self._command("response_add", numbers(worker, segment, blocks) + longs(block_bytes, where))

    def remove(self, worker: int, segment: int) -> None:
        """It may no more."""
        if self._kept.pop((worker, segment), None) is not None:
            self._command("response_remove", numbers(worker, segment))

    def forget(self, worker: int) -> None:
        """The worker is gone, and the loop knows."""
        for key in [key for key in self._kept if key[0] == worker]:
            del self._kept[key]


def later(callback: Any) -> None:
    """Have something done after the pause that a refusal calls for."""
    asyncio.get_running_loop().call_later(ASK_AGAIN_SECONDS, callback)
