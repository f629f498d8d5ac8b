"""The writing side of an arena: segments that this process fills, and their growth."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from predictd.server.transport.allocator import Block, BlockAllocator, SegmentShape
from predictd.server.transport.memory import create_shared
from predictd.server.transport.retention import Retention

_NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(slots=True)
class _Segment:
    mapping: mmap.mmap
    view: memoryview


class Arena:
    """Blocks of shared memory that only this process writes.

    A new segment is created in two steps: `create_segment` makes it and gives the descriptor to send around;
    `open_segment` puts its blocks to use once every reader has mapped it. What the load does without for long is
    given back by `give_back`.

    Args:
        name: Of the memory, for people.
        limit_bytes: The most that all segments together may have.
        keep_ns: How long memory is kept that nobody needs.
    """

    def __init__(self, name: str, limit_bytes: int, keep_ns: int) -> None:
        self._name = name
        self._allocator = BlockAllocator(limit_bytes)
        self._retention = Retention(keep_ns)
        self._segments: dict[int, _Segment] = {}
        self._pending: dict[int, SegmentShape] = {}
        self._next = 0

    def allocate(self, size_bytes: int) -> Block | None:
        """Take a block; None when the arena has to grow first."""
        return self._allocator.allocate(size_bytes)

    def allocate_larger(self, size_bytes: int) -> Block | None:
        """Take a block that is larger than it has to be: for when the arena cannot grow."""
        return self._allocator.allocate_larger(size_bytes)

    def free(self, block: Block) -> None:
        """Give a block back."""
        self._allocator.free(block)

    def plan_growth(self, size_bytes: int, *, least: bool = False) -> SegmentShape | None:
        """What to add, or what to add at `least`, for a block of `size_bytes`; None when the arena is at its limit."""
        return self._allocator.plan_growth(size_bytes, least=least)

    def create_segment(self, shape: SegmentShape) -> tuple[int, int]:
        """Make a fully allocated, sealed segment: its number and its descriptor, which the caller closes.

        Raises:
            OSError: The memory cannot be had.
        """
        fd, mapping = create_shared(self._name, shape.size_bytes)
        segment = self._next
        self._next += 1
        self._segments[segment] = _Segment(mapping, memoryview(mapping))
        self._pending[segment] = shape
        return segment, fd

    def open_segment(self, segment: int) -> None:
        """Every reader has mapped the segment: allocate from it."""
        shape = self._pending.pop(segment, None)
        if shape is not None:
            self._allocator.add_segment(segment, shape)

    def give_back(
        self, now_ns: int, *, pressed: bool = False, reserved: Mapping[int, int] = _NOTHING
    ) -> list[int]:
        """Do without what was not needed lately. Called now and then.

        Numbers of segments are not used again, so that a reader which still has one mapped mistakes it for no other.

        Args:
            now_ns: CLOCK_MONOTONIC.
            pressed: Memory was asked for and refused: give back whatever can be spared.
            reserved: Blocks of each size class that are kept whatever was needed.

        Returns:
            Segments that are unmapped here, and that their readers shall unmap.
        """
        allocator = self._allocator
        surplus: list[int] = []
        if pressed:
            surplus = self._retention.pressed(
                allocator.segments, allocator.used_by_segment(), reserved, allocator.peaks()
            )
        elif self._retention.is_due(now_ns):
            self._retention.ended(now_ns, allocator.peaks())
            allocator.forget_peaks()
            surplus = self._retention.surplus(allocator.segments, allocator.used_by_segment(), reserved)
        for segment in surplus:
            allocator.retire(segment)
        gone = allocator.remove_retired()
        for segment in gone:
            # The last reference: this unmaps it.
            del self._segments[segment]
        return gone

    def view(self, block: Block) -> memoryview:
        """The bytes of a block, writable."""
        return self._segments[block.segment].view[block.offset : block.offset + block.size_bytes]

    def segment_view(self, segment: int) -> memoryview:
        """The bytes of a whole segment, writable."""
        return self._segments[segment].view

    @property
    def limit_bytes(self) -> int:
        """The most that all segments together may have."""
        return self._allocator.limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, size_bytes: int) -> None:
        self._allocator.limit_bytes = size_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments, those not yet in use included."""
        return self._allocator.statistics().total_bytes + sum(s.size_bytes for s in self._pending.values())

    @property
    def used_blocks(self) -> int:
        """Blocks that are in use."""
        return self._allocator.statistics().used_blocks
