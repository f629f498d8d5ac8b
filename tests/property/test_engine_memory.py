"""When an engine shall give memory back: after large runs have ceased, and never again and again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.server.transport.retention import PARTS
from predictd.server.worker.engine_memory import SHRINK_FACTOR, EngineMemory, inputs_bytes

KEEP_NS = 1000
PART_NS = KEEP_NS // PARTS


class Engine:
    """Its memory, looked at once in each part of the while."""

    def __init__(self, warmed_bytes: int = 0) -> None:
        self.memory = EngineMemory(KEEP_NS, warmed_bytes)
        self.now_ns = 0
        assert not self.memory.shall_give_back(0)

    def part(self, *runs: int) -> bool:
        for size in runs:
            self.memory.ran(size)
        self.now_ns += PART_NS
        return self.memory.shall_give_back(self.now_ns)


sizes = st.integers(1, 1000)


@given(st.lists(sizes, min_size=1, max_size=PARTS))
def test_a_load_whose_largest_runs_return_in_time_gives_back_nothing(load: list[int]) -> None:
    engine = Engine()
    for _ in range(4):
        for size in load:
            assert not engine.part(size)


@given(sizes, st.lists(st.lists(sizes, max_size=3), max_size=12))
def test_it_gives_back_only_what_is_much_more_than_a_while_needed(warmed: int, load: list[list[int]]) -> None:
    engine = Engine(warmed)
    held, parts = warmed, list[int]()
    for runs in load:
        gives_back = engine.part(*runs)
        parts.append(max(runs, default=0))
        held = max(held, parts[-1])
        if gives_back:
            needed = max(parts[-PARTS:])
            assert len(parts) >= PARTS
            assert needed * SHRINK_FACTOR <= held
            assert engine.memory.idle == (needed == 0)
            held = needed


def test_after_a_burst_it_gives_back_once() -> None:
    engine = Engine()
    engine.part(1000)
    given_back = [engine.part(10) for _ in range(3 * PARTS)]
    assert given_back.count(True) == 1
    assert given_back.index(True) == PARTS - 1
    engine.part(1000)
    assert [engine.part() for _ in range(3 * PARTS)].count(True) == 1
    assert engine.memory.idle


def test_what_the_warm_up_took_is_given_back_by_a_lane_that_nobody_asks() -> None:
    engine = Engine(warmed_bytes=1000)
    assert [engine.part() for _ in range(3 * PARTS)].count(True) == 1
    never_warmed = Engine(warmed_bytes=0)
    assert not any(never_warmed.part() for _ in range(3 * PARTS))


def test_looking_more_often_changes_nothing() -> None:
    engine = Engine(warmed_bytes=1000)
    assert not engine.memory.shall_give_back(PART_NS - 1)
    assert engine.memory._parts.maxlen == PARTS
    assert not engine.memory._parts


def test_the_bytes_of_a_warm_up_are_those_of_its_inputs() -> None:
    signature = Signature(
        (
            TensorSpec("x", DType.FP32, (-1, 3, -1)),
            TensorSpec("fixed", DType.INT64, (5,)),
            TensorSpec("text", DType.BYTES, (-1,)),
            TensorSpec("maybe", DType.FP32, (-1, 100), optional=True),
        ),
        (),
        batches=True,
    )
    assert inputs_bytes(signature, 8) == 8 * 3 * 4 + 5 * 8
