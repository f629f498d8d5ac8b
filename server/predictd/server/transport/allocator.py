"""Who owns which block of an arena: a pure free-list allocator over slabs of equal blocks.

An arena is a list of segments; a segment is a slab of equal 64-byte-aligned blocks of one size class. There
are four classes to each power of two, so at most a fifth of a block is wasted. A segment that is retired gives no
more blocks; it leaves once it has all of them back. Only the arena's writer calls this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

ALIGNMENT_BYTES = 64
SMALLEST_BLOCK_BYTES = 512
SMALLEST_SEGMENT_BYTES = 256 * 1024
LARGEST_GROWTH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it lies and how large it is."""

    segment: int
    index: int
    size_bytes: int

    @property
    def offset(self) -> int:
        """Bytes from the start of the segment."""
        return self.index * self.size_bytes


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """A segment to be added: equal blocks of one size class."""

    block_bytes: int
    blocks: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole segment."""
        return self.block_bytes * self.blocks


def align(size_bytes: int) -> int:
    """Round up to the alignment of tensors and blocks."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def size_class(size_bytes: int) -> int:
    """The block size for `size_bytes`: 2**k times 1, 1.25, 1.5 or 1.75, at least SMALLEST_BLOCK_BYTES."""
    if size_bytes <= SMALLEST_BLOCK_BYTES:
        return SMALLEST_BLOCK_BYTES
    quarter = 1 << max((size_bytes - 1).bit_length() - 3, 6)
    return -(-size_bytes // quarter) * quarter


@dataclass(slots=True)
class _SizeClass:
    free: list[Block] = field(default_factory=list)
    total_bytes: int = 0
    used: int = 0
    peak: int = 0


@dataclass(frozen=True, slots=True)
class AllocatorStatistics:
    """A count of what an allocator holds."""

    segments: int
    total_bytes: int
    used_blocks: int
    used_bytes: int


class BlockAllocator:
    """Free lists by size class. Growth is planned here and carried out by the caller.

    Attributes:
        limit_bytes: The most that all segments together may have.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._classes: dict[int, _SizeClass] = {}
        self._segments: dict[int, SegmentShape] = {}
        self._retired: set[int] = set()
        self._used: set[tuple[int, int]] = set()
        self._used_bytes = 0
        self._total_bytes = 0

    def allocate(self, size_bytes: int) -> Block | None:
        """Take a block of at least `size_bytes`; None when none is free and the arena has to grow."""
        block_bytes = size_class(size_bytes)
        kind = self._classes.get(block_bytes)
        if kind is None or not (kind.free or self._bring_back(block_bytes)):
            return None
        return self._take(kind)

    def allocate_larger(self, size_bytes: int) -> Block | None:
        """Take the smallest free block of another class that is large enough: for an arena that cannot grow."""
        fitting = [size for size, kind in self._classes.items() if size >= size_bytes and kind.free]
        return self._take(self._classes[min(fitting)]) if fitting else None

    def _take(self, kind: _SizeClass) -> Block:
        block = kind.free.pop()
        self._used.add((block.segment, block.index))
        self._used_bytes += block.size_bytes
        kind.used += 1
        kind.peak = max(kind.peak, kind.used)
        return block

    def free(self, block: Block) -> None:
        """Give a block back.

        Raises:
            ValueError: The block is not in use. This is a bug.
        """
        try:
            self._used.remove((block.segment, block.index))
        except KeyError:
            raise ValueError(f"{block} is freed but not in use. This is a bug.") from None
        self._used_bytes -= block.size_bytes
        kind = self._classes[block.size_bytes]
        kind.used -= 1
        if block.segment not in self._retired:
            kind.free.append(block)

    def plan_growth(self, size_bytes: int, *, least: bool = False) -> SegmentShape | None:
        """The segment to add so that a block of `size_bytes` can be had; None when the limit forbids it.

        A class doubles each time it grows, so that few segments serve many blocks, up to
        LARGEST_GROWTH_BYTES. With `least` it grows by as little as it may: for when that was refused.
        """
        block_bytes = size_class(size_bytes)
        left_bytes = self.limit_bytes - self._total_bytes
        kind = self._classes.get(block_bytes)
        wish_bytes = max(SMALLEST_SEGMENT_BYTES, kind.total_bytes if kind and not least else 0)
        wish_bytes = max(block_bytes, min(wish_bytes, LARGEST_GROWTH_BYTES))
        blocks = min(wish_bytes, left_bytes) // block_bytes
        return SegmentShape(block_bytes, blocks) if blocks > 0 else None

    def add_segment(self, segment: int, shape: SegmentShape) -> None:
        """Put the blocks of a new segment into the free list."""
        if segment in self._segments:
            raise ValueError(f"segment {segment} was added already. This is a bug.")
        self._segments[segment] = shape
        kind = self._classes.setdefault(shape.block_bytes, _SizeClass())
        kind.total_bytes += shape.size_bytes
        self._total_bytes += shape.size_bytes
        kind.free.extend(Block(segment, index, shape.block_bytes) for index in reversed(range(shape.blocks)))

    @property
    def segments(self) -> Mapping[int, SegmentShape]:
        """Those that give blocks."""
        return {number: shape for number, shape in self._segments.items() if number not in self._retired}

    def used_by_segment(self) -> Counter[int]:
        """Blocks in use of each segment that has any."""
        return Counter(segment for segment, _ in self._used)

    def peaks(self) -> dict[int, int]:
        """The most blocks of each size class that were in use at once since `forget_peaks`."""
        return {block_bytes: kind.peak for block_bytes, kind in self._classes.items()}

    def forget_peaks(self) -> None:
        """Count peaks anew: what is in use now is the first of them."""
        for kind in self._classes.values():
            kind.peak = kind.used

    def retire(self, segment: int) -> None:
        """Take no more blocks of a segment, until they are needed before all of its blocks are back."""
        self._retired.add(segment)
        kind = self._classes[self._segments[segment].block_bytes]
        kind.free = [block for block in kind.free if block.segment != segment]

    def _bring_back(self, block_bytes: int) -> bool:
        """Use a retired segment of a class again. False when there is none with a free block."""
        for segment in self._retired:
            shape = self._segments[segment]
            if shape.block_bytes != block_bytes:
                continue
            free = [
                Block(segment, index, block_bytes)
                for index in reversed(range(shape.blocks))
                if (segment, index) not in self._used
            ]
            if free:
                self._retired.remove(segment)
                self._classes[block_bytes].free.extend(free)
                return True
        return False

    def remove_retired(self) -> list[int]:
        """Forget the retired segments that have all their blocks back. Returns their numbers."""
        if not self._retired:
            return []
        gone = sorted(self._retired - self.used_by_segment().keys())
        for segment in gone:
            shape = self._segments.pop(segment)
            self._retired.remove(segment)
            self._total_bytes -= shape.size_bytes
            kind = self._classes[shape.block_bytes]
            kind.total_bytes -= shape.size_bytes
            if not kind.total_bytes:
                del self._classes[shape.block_bytes]
        return gone

    def statistics(self) -> AllocatorStatistics:
        """What is allocated and what is in use."""
        return AllocatorStatistics(len(self._segments), self._total_bytes, len(self._used), self._used_bytes)
