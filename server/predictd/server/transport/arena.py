"""The writing side of an arena: segments that this process fills, and their growth."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from predictd.server.transport.allocator import Block, BlockAllocator, SegmentShape
from predictd.server.transport.memory import create_shared


@dataclass(slots=True)
class _Segment:
    mapping: mmap.mmap
    view: memoryview


class Arena:
    """Blocks of shared memory that only this process writes.

    A new segment is created in two steps: `create_segment` makes it and gives the descriptor to send around;
    `open_segment` puts its blocks to use once every reader has mapped it.
    """

    def __init__(self, name: str, limit_bytes: int) -> None:
        self._name = name
        self._allocator = BlockAllocator(limit_bytes)
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

    def view(self, block: Block) -> memoryview:
        """The bytes of a block, writable."""
        return self._segments[block.segment].view[block.offset : block.offset + block.size_bytes]

    def segment_view(self, segment: int) -> memoryview:
        """The bytes of a whole segment, writable."""
        return self._segments[segment].view

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments, those not yet in use included."""
        return self._allocator.statistics().total_bytes + sum(s.size_bytes for s in self._pending.values())

    @property
    def used_blocks(self) -> int:
        """Blocks that are in use."""
        return self._allocator.statistics().used_blocks
