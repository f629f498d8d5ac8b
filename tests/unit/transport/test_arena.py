"""An arena: blocks in sealed segments, used once every reader has mapped them."""

from __future__ import annotations

import os

from predictd.server.transport.allocator import SegmentShape
from predictd.server.transport.arena import Arena
from predictd.server.transport.memory import map_shared

LIMIT_BYTES = 2**20


def make_arena() -> Arena:
    """Not a fixture: pytest would keep its mappings open beyond the test."""
    return Arena("predictd-test", LIMIT_BYTES)


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
