"""Growth is granted against the limit and against what the machine leaves, promises included."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.launch.memory import Headroom, MemoryHeadroom
from predictd.server.supervise.growth import RESERVE_BYTES, GrowthPolicy

MIB = 1 << 20


class FixedHeadroom(MemoryHeadroom):
    def __init__(self, left_bytes: int, limit_bytes: int = 1 << 40) -> None:
        self.left_bytes = left_bytes
        self.limit_bytes = limit_bytes

    # typing.override needs Python 3.12.
    def read(self) -> Headroom:  # type: ignore[explicit-override]
        return Headroom(self.left_bytes, self.limit_bytes, "memory.max")


def test_growth_within_the_limit_is_granted_and_beyond_it_refused() -> None:
    policy = GrowthPolicy(100 * MIB, FixedHeadroom(1 << 40))
    assert policy.decide(1, 60 * MIB, 40 * MIB) is None
    policy.settle(1)
    assert policy.decide(1, 60 * MIB + 1, 40 * MIB) == (
        f"the shared memory is at its limit of {100 * MIB} bytes (arena_limit)"
    )


def test_what_was_promised_to_others_counts_and_ones_own_last_promise_does_not() -> None:
    policy = GrowthPolicy(100 * MIB, FixedHeadroom(1 << 40))
    assert policy.decide(1, 60 * MIB, 0) is None
    assert policy.decide(2, 60 * MIB, 0) is not None
    assert policy.decide(1, 70 * MIB, 0) is None
    assert policy.decide(2, 5 * MIB, 0) is None


def test_a_promise_is_over_when_its_segment_is_there_or_its_child_is_dead() -> None:
    policy = GrowthPolicy(100 * MIB, FixedHeadroom(1 << 40))
    assert policy.decide(1, 60 * MIB, 0) is None
    policy.settle(1)
    policy.settle(1)
    policy.settle(99)
    assert policy.decide(2, 70 * MIB, 0) is None


def test_a_refusal_promises_nothing() -> None:
    policy = GrowthPolicy(100 * MIB, FixedHeadroom(1 << 40))
    assert policy.decide(1, 101 * MIB, 0) is not None
    assert policy.decide(2, 70 * MIB, 0) is None


def test_requests_leave_a_quarter_to_answers_and_answers_to_requests() -> None:
    policy = GrowthPolicy(100 * MIB, FixedHeadroom(1 << 40))
    assert policy.decide(1, 10 * MIB, 70 * MIB, 70 * MIB) is not None
    assert policy.decide(1, 5 * MIB, 70 * MIB, 70 * MIB) is None
    policy.settle(1)
    assert policy.decide(2, 25 * MIB, 75 * MIB, 0) is None


def test_memory_is_left_for_everything_that_is_no_arena() -> None:
    headroom = FixedHeadroom(RESERVE_BYTES + 10 * MIB)
    policy = GrowthPolicy(1 << 40, headroom)
    assert policy.decide(1, 10 * MIB + 1, 0) == (
        f"the memory limit leaves no room for {10 * MIB + 1} more bytes"
    )
    assert policy.decide(1, 6 * MIB, 0) is None
    assert policy.decide(2, 6 * MIB, 0) is not None, "promised memory may not be touched yet"
    headroom.left_bytes += 2 * MIB
    assert policy.decide(2, 6 * MIB, 0) is None


@pytest.mark.parametrize(("asked", "limit"), [(None, 25), (7, 7)])
def test_without_a_limit_a_quarter_of_the_machine_is_taken(asked: int | None, limit: int) -> None:
    assert GrowthPolicy(asked, FixedHeadroom(50, limit_bytes=100)).limit_bytes == limit


def test_the_machine_of_this_test_has_a_limit() -> None:
    assert GrowthPolicy(None, MemoryHeadroom(Path("/"))).limit_bytes > MIB
