"""The allocator of an arena: no two owners of a byte, no byte beyond the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from predictd.server.transport.allocator import (
    ALIGNMENT_BYTES,
    LARGEST_GROWTH_BYTES,
    SMALLEST_BLOCK_BYTES,
    SMALLEST_SEGMENT_BYTES,
    Block,
    BlockAllocator,
    SegmentShape,
    align,
    size_class,
)

sizes = (
    st.integers(0, 3000) | st.integers(0, 2**21) | st.sampled_from([512, 513, 1024, 1025, 2**20, 2**20 + 1])
)
limits = st.sampled_from([0, 511, 4096, 2**18, 2**20, 5 * 2**20, 2**23])


def overlaps(one: Block, other: Block) -> bool:
    return (
        one.segment == other.segment
        and one.offset < other.offset + other.size_bytes
        and other.offset < one.offset + one.size_bytes
    )


class AllocatorMachine(RuleBasedStateMachine):
    """Blocks are taken, given back, and segments added as the allocator plans them."""

    blocks: Bundle[Block] = Bundle("blocks")

    @initialize(limit=limits)
    def start(self, limit: int) -> None:
        self.allocator = BlockAllocator(limit)
        self.segments: dict[int, SegmentShape] = {}
        self.added = 0
        self.used: list[Block] = []

    @rule(target=blocks, size=sizes)
    def allocate(self, size: int) -> Block | MultipleResults[Block]:
        block = self.allocator.allocate(size)
        if block is None:
            return multiple()
        self.check_block(block, size)
        self.used.append(block)
        return block

    @rule(target=blocks, size=sizes)
    def allocate_larger(self, size: int) -> Block | MultipleResults[Block]:
        block = self.allocator.allocate_larger(size)
        if block is None:
            return multiple()
        self.check_block(block, size)
        self.used.append(block)
        return block

    @rule(target=blocks, size=sizes, least=st.booleans())
    def grow_and_allocate(self, size: int, least: bool) -> Block | MultipleResults[Block]:
        shape = self.allocator.plan_growth(size, least=least)
        if shape is None:
            assert self.total_bytes() + size_class(size) > self.allocator.limit_bytes
            return multiple()
        assert shape.blocks >= 1
        assert shape.block_bytes == size_class(size)
        if least:
            assert shape.size_bytes <= max(SMALLEST_SEGMENT_BYTES, shape.block_bytes)
        assert shape.size_bytes <= max(LARGEST_GROWTH_BYTES, shape.block_bytes)
        number = self.added
        self.added += 1
        self.segments[number] = shape
        self.allocator.add_segment(number, shape)
        block = self.allocator.allocate(size)
        assert block is not None
        self.check_block(block, size)
        self.used.append(block)
        return block

    @rule(block=consumes(blocks))
    def free(self, block: Block) -> None:
        self.allocator.free(block)
        self.used.remove(block)
        # From the same segment, or from another of its class: one that is retired comes back if it has to.
        again = self.allocator.allocate(block.size_bytes)
        assert again is not None
        self.allocator.free(again)

    @rule(block=consumes(blocks))
    def free_twice(self, block: Block) -> None:
        self.allocator.free(block)
        self.used.remove(block)
        with pytest.raises(ValueError, match="This is a bug"):
            self.allocator.free(block)

    @rule(size=sizes)
    def add_a_segment_twice(self, size: int) -> None:
        assume(self.segments)
        with pytest.raises(ValueError, match="This is a bug"):
            self.allocator.add_segment(min(self.segments), SegmentShape(size_class(size), 1))

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        serving = sorted(self.allocator.segments)
        assume(serving)
        number = data.draw(st.sampled_from(serving))
        self.allocator.retire(number)
        assert number not in self.allocator.segments

    @rule()
    def remove_what_is_retired(self) -> None:
        kept = {block.segment for block in self.used} | set(self.allocator.segments)
        gone = self.allocator.remove_retired()
        assert set(gone) == set(self.segments) - kept
        for number in gone:
            del self.segments[number]

    @rule()
    def count_peaks_anew(self) -> None:
        self.allocator.forget_peaks()
        in_use = Counter(block.size_bytes for block in self.used)
        assert Counter(self.allocator.peaks()) == in_use
        assert self.allocator.used_by_segment() == Counter(block.segment for block in self.used)

    def check_block(self, block: Block, size: int) -> None:
        shape = self.segments[block.segment]
        assert block.size_bytes == shape.block_bytes >= size
        assert 0 <= block.index < shape.blocks
        assert block.offset % ALIGNMENT_BYTES == 0
        assert block.offset + block.size_bytes <= shape.size_bytes
        assert not [other for other in self.used if overlaps(block, other)]

    def total_bytes(self) -> int:
        return sum(shape.size_bytes for shape in self.segments.values())

    @invariant()
    def the_limit_is_kept_and_the_statistics_are_right(self) -> None:
        found = self.allocator.statistics()
        assert found.total_bytes == self.total_bytes() <= self.allocator.limit_bytes
        assert found.segments == len(self.segments)
        assert found.used_blocks == len(self.used)
        assert found.used_bytes == sum(block.size_bytes for block in self.used)


TestAllocator = AllocatorMachine.TestCase


@given(st.integers(0, 2**40))
def test_a_block_holds_the_request_and_wastes_little(size: int) -> None:
    block = size_class(size)
    assert block >= max(size, SMALLEST_BLOCK_BYTES)
    assert block % ALIGNMENT_BYTES == 0
    assert size_class(block) == block
    if size > SMALLEST_BLOCK_BYTES:
        assert block - size < block / 5
        assert block <= size * 1.25


@given(st.integers(10, 40))
def test_there_are_four_classes_to_a_power_of_two(power: int) -> None:
    start = 1 << power
    assert list(classes(start, 2 * start)) == [
        start,
        start * 5 // 4,
        start * 6 // 4,
        start * 7 // 4,
        2 * start,
    ]


def classes(smallest: int, largest: int) -> Iterator[int]:
    size = size_class(smallest)
    while size <= largest:
        yield size
        size = size_class(size + 1)


@given(st.integers(0, 2**40))
def test_aligned_sizes_are_the_next_multiple_of_64(size: int) -> None:
    assert align(size) % ALIGNMENT_BYTES == 0
    assert 0 <= align(size) - size < ALIGNMENT_BYTES


def test_a_class_doubles_until_growth_is_capped() -> None:
    allocator = BlockAllocator(2**40)
    grown = []
    for number in range(12):
        shape = allocator.plan_growth(4096)
        assert shape is not None
        allocator.add_segment(number, shape)
        grown.append(shape.size_bytes)
    assert grown[:3] == [2**18, 2**18, 2**19]
    assert grown[-1] == grown[-2] == LARGEST_GROWTH_BYTES


def test_the_last_segment_shrinks_to_what_the_limit_leaves() -> None:
    allocator = BlockAllocator(2**18 + 3 * 4096 + 100)
    first = allocator.plan_growth(4096)
    assert first is not None
    allocator.add_segment(0, first)
    assert allocator.plan_growth(4096) == SegmentShape(4096, 3)
    assert allocator.plan_growth(4 * 4096) is None


def test_where_nothing_fits_exactly_the_smallest_larger_block_is_taken() -> None:
    allocator = BlockAllocator(2**22)
    for number, size in enumerate((8192, 2048, 1024)):
        allocator.add_segment(number, SegmentShape(size, 1))
    first, second = allocator.allocate_larger(1500), allocator.allocate_larger(1500)
    assert first == Block(1, 0, 2048)
    assert second == Block(0, 0, 8192)
    assert allocator.allocate_larger(1500) is None
    allocator.free(second)
    assert allocator.allocate(8192) == second
