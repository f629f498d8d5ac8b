"""An arena: blocks in sealed segments, used once every reader has mapped them."""

from __future__ import annotations

import os

import pytest

from predictd.server.transport.allocator import SegmentShape
from predictd.server.transport.arena import Arena
from predictd.server.transport.memory import map_shared
from predictd.server.transport.retention import PARTS

LIMIT_BYTES = 2**20
KEEP_NS = 60 * 10**9


def make_arena() -> Arena:
    """Not a fixture: pytest would keep its mappings open beyond the test."""
    return Arena("predictd-test", LIMIT_BYTES, KEEP_NS)


def test_a_segment_is_used_only_once_it_is_opened() -> None:
    arena = make_arena()
    shape = arena.plan_growth(1000)
    assert shape is not None
    segment, fd = arena.create_segment(shape)
    os.close(fd)
    assert arena.allocate(1000) is None
    assert arena.total_bytes == shape.size_bytes
    arena.open_segment(segment)
    block = arena.allocate(1000)
    assert block is not None
    assert block.segment == segment
    assert (arena.used_blocks, arena.total_bytes) == (1, shape.size_bytes)


def test_opening_a_segment_again_adds_nothing() -> None:
    arena = make_arena()
    segment, fd = arena.create_segment(SegmentShape(1024, 1))
    os.close(fd)
    arena.open_segment(segment)
    arena.open_segment(segment)
    assert arena.allocate(1024) is not None
    assert arena.allocate(1024) is None


def test_a_reader_finds_a_block_where_its_number_says() -> None:
    arena = make_arena()
    shape = SegmentShape(1024, 4)
    segment, fd = arena.create_segment(shape)
    with map_shared(fd, shape.size_bytes) as reader:
        os.close(fd)
        arena.open_segment(segment)
        blocks = [arena.allocate(1000) for _ in range(4)]
        for block in blocks:
            assert block is not None
            view = arena.view(block)
            assert len(view) == 1024
            view[:] = bytes([block.index + 1]) * 1024
        for index in range(4):
            assert reader[index * 1024 : (index + 1) * 1024] == bytes([index + 1]) * 1024
        assert bytes(arena.segment_view(segment)) == reader[:]


def test_segments_are_numbered_and_a_block_comes_back_for_reuse() -> None:
    arena = make_arena()
    numbers = []
    for _ in range(2):
        segment, fd = arena.create_segment(SegmentShape(4096, 1))
        os.close(fd)
        arena.open_segment(segment)
        numbers.append(segment)
    assert numbers == [0, 1]
    first, second = arena.allocate(4096), arena.allocate(4096)
    assert first is not None
    assert second is not None
    arena.free(first)
    assert arena.allocate(4000) == first


def test_growth_ends_at_the_limit() -> None:
    arena = make_arena()
    assert arena.plan_growth(LIMIT_BYTES + 1) is None
    shape = arena.plan_growth(LIMIT_BYTES)
    assert shape == SegmentShape(LIMIT_BYTES, 1)


def grow(arena: Arena, shape: SegmentShape) -> int:
    segment, fd = arena.create_segment(shape)
    os.close(fd)
    arena.open_segment(segment)
    return segment


def pass_while(arena: Arena, start_ns: int = 0) -> list[int]:
    """Look at the arena as often as it takes to forget what was needed."""
    step_ns = KEEP_NS // PARTS
    return [segment for part in range(PARTS + 2) for segment in arena.give_back(start_ns + part * step_ns)]


def test_what_nobody_needs_is_unmapped_after_a_while_and_its_number_is_not_used_again() -> None:
    arena = make_arena()
    first, second = (grow(arena, SegmentShape(4096, 2)) for _ in range(2))
    assert pass_while(arena) == [first, second]
    assert arena.total_bytes == 0
    with pytest.raises(KeyError):
        arena.segment_view(first)
    assert grow(arena, SegmentShape(4096, 2)) not in (first, second)


def test_a_retired_segment_goes_once_its_last_block_is_back() -> None:
    arena = make_arena()
    grow(arena, SegmentShape(4096, 8))
    block = arena.allocate(4096)
    grow(arena, SegmentShape(4096, 8))
    assert block is not None
    arena.view(block)[:4] = b"here"
    arena.give_back(0)
    gone = pass_while(arena, KEEP_NS)
    assert len(gone) == 1
    assert block.segment not in gone
    assert bytes(arena.view(block)[:4]) == b"here"
    arena.free(block)
    assert pass_while(arena, 3 * KEEP_NS) == [block.segment]


def test_what_is_reserved_is_kept_and_under_pressure_the_rest_goes_at_once() -> None:
    arena = make_arena()
    kept = grow(arena, SegmentShape(4096, 2))
    spared = grow(arena, SegmentShape(8192, 2))
    assert arena.give_back(0, reserved={4096: 1}) == []
    assert arena.give_back(1, pressed=True, reserved={4096: 1}) == [spared]
    assert arena.allocate(4096) is not None
    assert kept in arena._segments


def test_a_retired_segment_is_used_again_before_the_arena_grows() -> None:
    arena = make_arena()
    segment = grow(arena, SegmentShape(4096, 8))
    held = [arena.allocate(4096) for _ in range(5)]
    for block in held[1:]:
        assert block is not None
        arena.free(block)
    arena._allocator.retire(segment)
    again = [arena.allocate(4096) for _ in range(7)]
    assert all(block is not None and block.segment == segment for block in again)
    assert arena.allocate(4096) is None
