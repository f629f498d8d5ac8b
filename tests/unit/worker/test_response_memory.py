"""The response arena of a worker: blocks are held until every answer in them was given back."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from predictd.server.control.memory import GrowthRequest, SegmentAdded, SegmentRetired
from predictd.server.control.message import Message
from predictd.server.transport.memory import map_shared
from predictd.server.transport.pipes import make_pipe
from predictd.server.transport.records import RELEASE_STRUCT
from predictd.server.transport.retention import PARTS
from predictd.server.worker import response_memory
from predictd.server.worker.response_memory import NoResponseMemoryError, ResponseMemory

LIMIT_BYTES = 4 * 2**20
CLOCK = "predictd.server.worker.response_memory.time.monotonic_ns"
KEEP_NS = 60 * 10**9
SEGMENT_BYTES = 256 * 1024


class Supervisor:
    """Answers what the worker asks, at once."""

    def __init__(self, limit_bytes: int) -> None:
        self.pipe = make_pipe()
        self.memory = ResponseMemory(7, 3, limit_bytes, KEEP_NS, self.pipe.read_fd, self.hear)
        self.heard: list[Message] = []
        self.refuse: Callable[[int], str | None] = lambda _size: None
        self.maps = True

    def hear(self, message: Message, fds: list[int]) -> None:
        """What the worker sends."""
        self.heard.append(message)
        match message:
            case GrowthRequest(size_bytes=size_bytes):
                self.memory.granted(self.refuse(size_bytes))
            case SegmentAdded(segment=segment, block_bytes=block_bytes, blocks=blocks):
                map_shared(fds[0], block_bytes * blocks).close()
                if self.maps:
                    self.memory.usable(segment)
            case SegmentRetired():
                pass
            case _:
                raise TypeError

    def release(self, frontend: int, segment: int, block: int, count: int) -> None:
        """A front end gives answers back."""
        os.write(self.pipe.write_fd, struct.pack(RELEASE_STRUCT, frontend, segment, block, count))

    @property
    def used(self) -> int:
        """Blocks that are in use, once the releases are in."""
        self.memory.collect_releases()
        return self.memory._arena.used_blocks


@contextmanager
def supervised(limit_bytes: int = LIMIT_BYTES) -> Iterator[Supervisor]:
    supervisor = Supervisor(limit_bytes)
    try:
        yield supervisor
    finally:
        supervisor.pipe.close()


def test_a_block_grows_the_arena_once_and_comes_back_for_reuse() -> None:
    with supervised() as supervisor:
        memory = supervisor.memory
        block = memory.block(1000)
        memory.view(block)[:4] = b"here"
        memory.discard(block)
        assert memory.block(1000) == block
        assert supervisor.heard == [
            GrowthRequest(size_bytes=SEGMENT_BYTES),
            SegmentAdded(seq=0, owner=7, pool=3, segment=0, block_bytes=1024, blocks=256),
        ]
        assert memory.total_bytes == SEGMENT_BYTES


def test_a_block_is_free_once_every_front_end_gave_back_every_answer() -> None:
    with supervised() as supervisor:
        block = supervisor.memory.block(1000)
        supervisor.memory.hold(block, {1: 3, 2: 1})
        supervisor.release(1, block.segment, block.index, 2)
        assert supervisor.used == 1
        supervisor.release(2, block.segment, block.index, 1)
        assert supervisor.used == 1
        supervisor.release(1, block.segment, block.index, 1)
        assert supervisor.used == 0


def test_releases_of_blocks_that_are_not_held_change_nothing() -> None:
    with supervised() as supervisor:
        block = supervisor.memory.block(1000)
        supervisor.memory.hold(block, {1: 1})
        supervisor.release(2, block.segment, block.index, 1)
        supervisor.release(1, block.segment, block.index + 1, 1)
        supervisor.release(1, 99, block.index, 1)
        assert supervisor.used == 1


def test_a_front_end_that_died_gives_everything_back() -> None:
    with supervised() as supervisor:
        shared, own = supervisor.memory.block(1000), supervisor.memory.block(1000)
        supervisor.memory.hold(shared, {1: 2, 2: 2})
        supervisor.memory.hold(own, {1: 5})
        supervisor.memory.forget_frontend(1)
        assert supervisor.used == 1
        supervisor.release(1, shared.segment, shared.index, 1)
        supervisor.release(2, shared.segment, shared.index, 2)
        assert supervisor.used == 0


def test_a_late_release_of_the_dead_does_not_free_the_next_holders_block() -> None:
    with supervised() as supervisor:
        block = supervisor.memory.block(1000)
        supervisor.memory.hold(block, {1: 1})
        supervisor.memory.forget_frontend(1)
        again = supervisor.memory.block(1000)
        assert again == block
        supervisor.memory.hold(again, {2: 1})
        supervisor.release(1, block.segment, block.index, 1)
        assert supervisor.used == 1


def test_refused_growth_says_why() -> None:
    with supervised() as supervisor:
        supervisor.refuse = lambda _size: "the memory limit leaves no room"
        with pytest.raises(NoResponseMemoryError, match="leaves no room"):
            supervisor.memory.block(1000)
        supervisor.refuse = lambda _size: None
        assert supervisor.memory.block(1000).size_bytes == 1024


def test_growth_that_is_refused_is_tried_again_with_as_little_as_may_be() -> None:
    with supervised() as supervisor:
        memory = supervisor.memory
        for _ in range(2 * SEGMENT_BYTES // 65536):
            memory.block(65536)
        supervisor.refuse = lambda size: "too much" if size > SEGMENT_BYTES else None
        memory.block(65536)
        asked = [one.size_bytes for one in supervisor.heard if isinstance(one, GrowthRequest)]
        assert asked == [SEGMENT_BYTES, SEGMENT_BYTES, 2 * SEGMENT_BYTES, SEGMENT_BYTES]


def test_the_limit_of_the_arena_is_named() -> None:
    with supervised(limit_bytes=1000) as supervisor:
        with pytest.raises(NoResponseMemoryError, match="at its limit of 1000 bytes"):
            supervisor.memory.block(2000)
        assert supervisor.heard == []


def test_at_the_limit_a_larger_block_serves() -> None:
    with supervised(limit_bytes=65536) as supervisor:
        large = supervisor.memory.block(65536)
        supervisor.memory.discard(large)
        assert supervisor.memory.block(1000) == large


def test_at_the_limit_a_block_that_is_about_to_be_released_is_waited_for() -> None:
    with supervised(limit_bytes=65536) as supervisor:
        held = supervisor.memory.block(65536)
        supervisor.memory.hold(held, {1: 1})
        release = threading.Timer(0.02, supervisor.release, (1, held.segment, held.index, 1))
        release.start()
        assert supervisor.memory.block(65536) == held
        release.join()


def test_what_nobody_releases_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_memory, "GROWTH_TIMEOUT_SECONDS", 0.01)
    with supervised(limit_bytes=65536) as supervisor:
        supervisor.memory.hold(supervisor.memory.block(65536), {1: 1})
        with pytest.raises(NoResponseMemoryError, match="arena_limit"):
            supervisor.memory.block(65536)


def test_a_supervisor_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_memory, "GROWTH_TIMEOUT_SECONDS", 0.01)
    with supervised() as supervisor:
        memory = ResponseMemory(
            7, 3, LIMIT_BYTES, KEEP_NS, supervisor.pipe.read_fd, lambda _message, _fds: None
        )
        with pytest.raises(NoResponseMemoryError, match="supervisor does not answer"):
            memory.block(1000)


def test_memory_that_front_ends_map_late_is_used_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_memory, "GROWTH_TIMEOUT_SECONDS", 0.01)
    with supervised() as supervisor:
        supervisor.maps = False
        with pytest.raises(NoResponseMemoryError, match="do not map new memory"):
            supervisor.memory.block(1000)
        with pytest.raises(NoResponseMemoryError, match="do not map new memory"):
            supervisor.memory.block(1000)
        assert len(supervisor.heard) == 2
        supervisor.memory.usable(0)
        assert supervisor.memory.block(1000).segment == 0
        assert supervisor.memory.total_bytes == SEGMENT_BYTES


def look_often(memory: ResponseMemory, monkeypatch: pytest.MonkeyPatch, from_ns: int) -> int:
    """Look at the memory as often as it takes to forget what was needed. Returns when it was looked at last."""
    now_ns = from_ns
    for _ in range(PARTS + 2):
        now_ns += KEEP_NS // PARTS
        monkeypatch.setattr(CLOCK, lambda moment=now_ns: moment)
        memory.give_back()
    return now_ns


def test_memory_is_given_back_once_released_but_for_what_a_lane_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with supervised() as supervisor:
        memory = supervisor.memory
        memory.reserve(1, 1000)
        large = memory.block(300_000)
        memory.hold(large, {1: 1})
        now_ns = look_often(memory, monkeypatch, 0)
        assert memory.total_bytes > SEGMENT_BYTES, "a front end has not released the answer"
        supervisor.release(1, large.segment, large.index, 1)
        now_ns = look_often(memory, monkeypatch, now_ns)
        assert supervisor.heard[-1] == SegmentRetired(seq=0, owner=7, pool=3, segment=large.segment)
        assert memory.total_bytes == SEGMENT_BYTES
        memory.forget_lane(1)
        look_often(memory, monkeypatch, now_ns)
        assert memory.total_bytes == 0
        assert memory.block(300_000).segment > large.segment, "no number is used again"


def test_memory_that_is_refused_to_one_size_is_given_back_by_those_that_did_not_need_it_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with supervised(2**20) as supervisor:
        memory = supervisor.memory
        memory.discard(memory.block(1000))
        memory.discard(memory.block(500_000))
        had_bytes = memory.total_bytes
        for looks, left_bytes in ((0, had_bytes), (1, had_bytes), (3, 0)):
            for look in range(looks):
                moment_ns = look * KEEP_NS // PARTS
                monkeypatch.setattr(CLOCK, lambda now_ns=moment_ns: now_ns)
                memory.give_back()
            with pytest.raises(NoResponseMemoryError, match="arena_limit"):
                memory.block(900_000)
            assert memory.total_bytes == left_bytes
        assert memory.block(900_000).size_bytes >= 900_000
