"""Who owns which block of an arena: a pure free-list allocator over slabs of equal blocks.

An arena is a list of segments; a segment is a slab of equal 64-byte-aligned blocks of one size class. There
are four classes to each power of two, so at most a fifth of a block is wasted. Only the arena's writer calls
this.
"""

from __future__ import annotations

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
        self._used: set[tuple[int, int]] = set()
        self._used_bytes = 0
        self._total_bytes = 0

    def allocate(self, size_bytes: int) -> Block | None:
        """Take a block of at least `size_bytes`; None when none is free and the arena has to grow."""
        kind = self._classes.get(size_class(size_bytes))
        return self._take(kind) if kind is not None and kind.free else None

    def allocate_larger(self, size_bytes: int) -> Block | None:
        """Take the smallest free block of another class that is large enough: for an arena that cannot grow."""
        fitting = [size for size, kind in self._classes.items() if size >= size_bytes and kind.free]
        return self._take(self._classes[min(fitting)]) if fitting else None

    def _take(self, kind: _SizeClass) -> Block:
        block = kind.free.pop()
        self._used.add((block.segment, block.index))
        self._used_bytes += block.size_bytes
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
        self._classes[block.size_bytes].free.append(block)

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

    def statistics(self) -> AllocatorStatistics:
        """What is allocated and what is in use."""
        return AllocatorStatistics(len(self._segments), self._total_bytes, len(self._used), self._used_bytes)
