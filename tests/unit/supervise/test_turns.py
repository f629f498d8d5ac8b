"""One load at a time on a CPU, in the order in which they came, and none for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.supervise import turns
from predictd.server.supervise.turns import LoadTurns, Turn, may_begin
from tests.fixtures.keeping import turns as settled

NOW = 100.0
CPUS = st.frozensets(st.integers(0, 5), min_size=1)


def on(*cpus: int, ends_at: float = NOW + 1) -> Turn:
    return Turn(frozenset(cpus), ends_at)


def due(waiting: list[set[int]], *under_way: Turn) -> list[int]:
    return may_begin([frozenset(cpus) for cpus in waiting], under_way, NOW)


def test_loads_on_different_cpus_run_at_once_and_those_on_the_same_one_after_the_other() -> None:
    assert due([{0, 1}, {2}, {1, 3}, {4}]) == [0, 1, 3]


def test_whoever_loads_on_one_of_its_cpus_is_waited_for() -> None:
    assert due([{0, 1}, {2}], on(1, 5)) == [1]


def test_a_load_that_had_its_time_is_not_waited_for() -> None:
    assert due([{0}], on(0, ends_at=NOW)) == [0]


def test_nobody_is_overtaken_on_a_cpu_that_it_waits_for() -> None:
    assert due([{0, 1}, {1}, {2}], on(0)) == [2]


@given(st.lists(CPUS), st.lists(st.tuples(CPUS, st.floats(NOW - 1, NOW + 1))))
def test_no_two_loads_share_a_cpu_and_none_waits_without_a_reason(
    waiting: list[frozenset[int]], under_way: list[tuple[frozenset[int], float]]
) -> None:
    begun = may_begin(waiting, [Turn(cpus, ends_at) for cpus, ends_at in under_way], NOW)
    running = [cpus for cpus, ends_at in under_way if ends_at > NOW]
    for index, cpus in enumerate(waiting):
        ahead = [*running, *waiting[:index]]
        assert (index in begun) == all(cpus.isdisjoint(other) for other in ahead)


def play(scenario: Callable[[LoadTurns, list[int]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await scenario(LoadTurns(), [])

    asyncio.run(run())


def ask(loads: LoadTurns, begun: list[int], *workers: int) -> None:
    for worker in workers:
        loads.ask((worker, 0), (0,), partial(begun.append, worker))


def test_the_next_begins_when_one_is_over_gone_or_not_wanted_any_more() -> None:
    async def scenario(loads: LoadTurns, begun: list[int]) -> None:
        ask(loads, begun, 1, 2, 3, 4, 5)
        assert begun == [1]
        loads.over((1, 0))
        assert begun == [1, 2]
        loads.over((3, 0))
        loads.gone(4)
        loads.gone(2)
        assert begun == [1, 2, 5]
        loads.over((5, 0))
        ask(loads, begun, 6)
        assert begun == [1, 2, 5, 6]

    play(scenario)


def test_what_begins_at_once_is_waited_for_all_the_same() -> None:
    async def scenario(loads: LoadTurns, begun: list[int]) -> None:
        ask(loads, begun, 1)
        loads.take((2, 0), (0,))
        loads.over((1, 0))
        ask(loads, begun, 3)
        assert begun == [1]
        loads.over((2, 0))
        assert begun == [1, 3]

    play(scenario)


def test_a_load_that_hangs_holds_the_others_up_for_a_while_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)

    async def scenario(loads: LoadTurns, begun: list[int]) -> None:
        ask(loads, begun, 1, 2, 3)
        async with asyncio.timeout(10):
            while begun != [1, 2, 3]:
                await settled()

    play(scenario)
