"""What an arena keeps: never less than a steady load needs, and nothing for a load that has passed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from predictd.server.transport.allocator import Block, BlockAllocator
from predictd.server.transport.retention import PARTS, Retention

KEEP_NS = 1000
PART_NS = KEEP_NS // PARTS
CLASSES = (4096, 2**17, 2**20)


class Arena:
    """An allocator and its retention, as an arena combines them; a moment is a part of the while."""

    def __init__(self) -> None:
        self.allocator = BlockAllocator(2**40)
        self.retention = Retention(KEEP_NS)
        self.retention.is_due(0)
        self.now_ns = 0
        self.used: dict[int, list[Block]] = {size: [] for size in CLASSES}
        self.grown = 0

    def moment(self, wanted: Sequence[int]) -> list[int]:
        """Have so many blocks of each class in use for a part of the while. Returns what was given back."""
        for size, count in zip(CLASSES, wanted, strict=True):
            held = self.used[size]
            while held:
                self.allocator.free(held.pop(0))
            while len(held) < count:
                held.append(self._allocate(size))
        self.now_ns += PART_NS
        assert self.retention.is_due(self.now_ns)
        self.retention.ended(self.now_ns, self.allocator.peaks())
        self.allocator.forget_peaks()
        segments, used = self.allocator.segments, self.allocator.used_by_segment()
        for number in self.retention.surplus(segments, used, {}):
            self.allocator.retire(number)
        return self.allocator.remove_retired()

    def _allocate(self, size: int) -> Block:
        block = self.allocator.allocate(size)
        if block is None:
            shape = self.allocator.plan_growth(size)
            assert shape is not None
            self.allocator.add_segment(self.grown, shape)
            self.grown += 1
            block = self.allocator.allocate(size)
            assert block is not None
        return block


demands = st.tuples(*(st.integers(0, top) for top in (70, 20, 5)))
steady = st.lists(demands, min_size=1, max_size=PARTS)


@settings(max_examples=40)
@given(st.lists(demands, max_size=8), steady)
def test_a_load_whose_peaks_return_in_time_soon_neither_grows_nor_gives_back(
    before: list[Sequence[int]], load: list[Sequence[int]]
) -> None:
    arena = Arena()
    for wanted in before:
        arena.moment(wanted)
    # What came before is forgotten, and what is retired has its blocks back.
    for _ in range(2 * PARTS):
        for wanted in load:
            arena.moment(wanted)
    grown = arena.grown
    for _ in range(PARTS):
        for wanted in load:
            assert arena.moment(wanted) == []
    assert arena.grown == grown


@given(st.lists(demands, min_size=1, max_size=8))
def test_when_a_load_has_passed_everything_is_given_back(load: list[Sequence[int]]) -> None:
    arena = Arena()
    for wanted in load:
        arena.moment(wanted)
    for _ in range(PARTS + 2):
        arena.moment((0, 0, 0))
    found = arena.allocator.statistics()
    assert (found.segments, found.total_bytes) == (0, 0)


@given(st.lists(demands, min_size=PARTS + 1, max_size=12), st.sampled_from(CLASSES), st.integers(1, 3))
def test_what_is_left_holds_the_peaks_of_the_last_while_and_what_is_reserved(
    load: list[Sequence[int]], reserved_class: int, reserved: int
) -> None:
    arena = Arena()
    for wanted in load:
        arena.moment(wanted)
    segments = arena.allocator.segments
    given = arena.retention.surplus(segments, arena.allocator.used_by_segment(), {reserved_class: reserved})
    left = dict.fromkeys(CLASSES, 0)
    had = dict(left)
    for number, shape in segments.items():
        had[shape.block_bytes] += shape.blocks
        left[shape.block_bytes] += 0 if number in given else shape.blocks
    for at, size in enumerate(CLASSES):
        peak = max(wanted[at] for wanted in load[-PARTS:])
        needed = max(peak, reserved if size == reserved_class else 0)
        assert left[size] >= min(needed, had[size])


def test_nothing_is_given_back_before_the_while_has_passed_once() -> None:
    arena = Arena()
    arena.moment((1, 1, 1))
    # What is in use when a part begins counts in that part.
    for _ in range(PARTS):
        assert arena.moment((0, 0, 0)) == []
    assert len(arena.moment((0, 0, 0))) == len(CLASSES)


def test_when_memory_is_asked_for_and_refused_only_what_is_recent_counts() -> None:
    arena = Arena()
    arena.moment((0, 0, 3))
    arena.moment((0, 1, 0))
    arena.moment((0, 0, 0))
    segments = arena.allocator.segments

    def spared(**needed: int) -> set[int]:
        reserved, peaks = {2**17: needed.get("reserved", 0)}, {2**20: needed.get("now", 0)}
        given = arena.retention.pressed(segments, {}, reserved, peaks)
        return {segments[number].block_bytes for number in given}

    assert spared() == {2**20}
    assert spared(now=4) == set()
    arena.moment((0, 0, 0))
    assert spared() == {2**17, 2**20}
    assert spared(reserved=1) == {2**20}
