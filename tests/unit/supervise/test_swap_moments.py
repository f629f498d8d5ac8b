"""Lanes that come and go while workers come, go and die: the moments that a swap seldom hits."""

from __future__ import annotations

import asyncio

import pytest

from predictd.server.control.messages import (
    AddLanes,
    LaneFailed,
    LaneLoaded,
    LaneLoading,
    RemoveLane,
    Serve,
    Warm,
)
from predictd.server.supervise import turns as turns_module
from predictd.server.supervise import workers as workers_module
from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.states import State
from tests.fixtures.keeping import SIGNATURE, Crew, turns
from tests.fixtures.keeping import play_crew as play
from tests.fixtures.supervision import Nursery, lane_config


def come(crew: Crew, lane: int) -> LaneRecord:
    """One more lane for the pool."""
    record = LaneRecord(lane_config(lane), 1, 1)
    crew.catalog.add(record)
    crew.workers.load(crew.workers.pools[1], record)
    return record


# Lanes that come ----------------------------------------------------------------------------------------------


def test_a_lane_that_comes_is_ready_once_every_worker_that_serves_has_it(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        first, second = (crew.serve(child, 1) for child in list(nursery.children))
        record = come(crew, 2)
        states = []
        for child in (first, second):
            assert child.got(AddLanes)[-1].lanes == [record.config]
            crew.load(child, 2)
            states.append(record.state)
        assert states == ["LOADING", "READY"]

    play(nursery, scenario, 1)


def test_a_lane_that_comes_while_a_worker_loads_waits_for_its_turn(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start(workers=2)
        first, second = (crew.serve(child, 1) for child in list(nursery.children))
        again = crew.hello(await crew.die(second))
        record = come(crew, 2)
        assert [len(child.got(AddLanes)) for child in (first, again)] == [1, 1], "another one loads there"
        crew.load(again, 1)
        again.says(Warm())
        assert (pool.places[1].state, again.got(Serve)) == (State.SERVING, [Serve()])
        for child in (first, again):
            assert child.got(AddLanes)[-1].lanes == [record.config]
            crew.load(child, 2)
        assert record.state == "READY"

    play(nursery, scenario, 1)


def test_a_worker_that_lacks_what_others_serve_by_now_does_not_serve_before_it_has_it(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(crew: Crew) -> None:
        monkeypatch.setattr(turns_module, "TURN_SECONDS", 0)
        pool = crew.start(workers=2)
        first, second = (crew.serve(child, 1) for child in list(nursery.children))
        again = crew.hello(await crew.die(second))
        record = come(crew, 2)
        assert again.got(AddLanes)[-1].lanes == [record.config]
        crew.load(first, 2)
        assert record.state == "READY"
        crew.load(again, 1)
        again.says(Warm())
        assert (pool.places[1].state, again.got(Serve)) == (State.MAPPING, [])
        crew.load(again, 2)
        assert (pool.places[1].state, again.got(Serve)) == (State.SERVING, [Serve()])

    play(nursery, scenario, 1)


def test_a_lane_is_not_ready_while_nobody_serves_it(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        first, second = (crew.serve(child, 1) for child in list(nursery.children))
        record = come(crew, 2)
        crew.load(first, 2)
        for child in (first, second):
            child.exits(-9)
        crew.workers._announce(crew.workers.pools[1])
        assert record.state == "LOADING"
        await turns()

    play(nursery, scenario, 1)


async def overdue(record: LaneRecord) -> None:
    async with asyncio.timeout(10):
        while record.state == "LOADING":
            await turns()
    assert (record.state, record.reason) == ("FAILED", "it takes more than 0.01 s to load (load_timeout)")


@pytest.mark.parametrize("serving", [True, False])
def test_a_load_that_takes_too_long_beside_others_is_given_up_without_disturbing_them(
    nursery: Nursery, serving: bool
) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = nursery.last
        if serving:
            crew.serve(child, 1)
            record = come(crew, 2)
            child.says(LaneLoading(lane=2))
        else:
            crew.hello(child)
            crew.load(child, 1)
            crew.catalog.add(LaneRecord(lane_config(2), 1, 1))
            record = crew.catalog.record(2)
            child.says(LaneLoading(lane=2))
        await overdue(record)
        assert child.got(RemoveLane) == [RemoveLane(lane=2)]
        child.says(LaneFailed(lane=2, reason="the load was given up"))
        assert "load_timeout" in record.reason, "the first reason counts"
        third = come(crew, 3)
        crew.load(child, 3)
        if not serving:
            child.says(Warm())
        assert (third.state, child.killed, len(nursery.children)) == ("READY", False, 1)

    play(nursery, scenario, 1, load_timeout_seconds=0.01)


def test_a_lane_that_was_given_up_and_is_loaded_all_the_same_is_taken_away(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.serve(nursery.last, 1)
        record = come(crew, 2)
        child.says(LaneLoading(lane=2))
        await overdue(record)
        child.says(LaneLoaded(lane=2, signature=SIGNATURE, load_seconds=1, warmup_seconds=1))
        assert child.got(RemoveLane) == [RemoveLane(lane=2)] * 2
        assert (record.state, child.killed) == ("FAILED", False)

    play(nursery, scenario, 1, load_timeout_seconds=0.01)


def test_a_load_that_cannot_be_given_up_ends_with_its_worker_and_is_not_tried_again(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "CANCEL_SECONDS", 0)

    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.serve(nursery.last, 1)
        record = come(crew, 2)
        child.says(LaneLoading(lane=2))
        await overdue(record)
        async with asyncio.timeout(10):
            while not child.killed:
                await turns()
        again = crew.hello(await crew.die(child))
        assert again.got(AddLanes) == [AddLanes(lanes=[lane_config(1)])]

    play(nursery, scenario, 1, load_timeout_seconds=0.01)


# Lanes that go ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_not_yet_told_who_it_is_hears_nothing_of_lanes_that_go(nursery: Nursery) -> None:
    """Its first message has to be the one that says who it is."""

    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = nursery.last
        crew.workers.drop(pool, crew.catalog.record(2))
        assert child.sent == []
        crew.hello(child)
        assert child.got(AddLanes) == [AddLanes(lanes=[lane_config(1)])]

    play(nursery, scenario, 1, 2)


def test_the_end_of_a_lane_whose_load_went_on_is_sent_after_it(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = crew.serve(nursery.last, 1)
        come(crew, 2)
        child.says(LaneLoading(lane=2))
        crew.workers.drop(pool, crew.catalog.record(2))
        child.says(LaneLoaded(lane=2, signature=SIGNATURE, load_seconds=1, warmup_seconds=1))
        assert child.got(RemoveLane) == [RemoveLane(lane=2)] * 2

    play(nursery, scenario, 1)


def test_a_worker_that_dies_of_a_load_that_was_given_up_comes_back(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = crew.serve(nursery.last, 1)
        come(crew, 2)
        child.says(LaneLoading(lane=2))
        crew.workers.drop(pool, crew.catalog.record(2))
        again = await crew.die(child)
        assert again is not child
        crew.serve(again, 1)

    play(nursery, scenario, 1)


def test_a_pool_ends_with_its_last_lane_that_has_not_failed(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = crew.serve(nursery.last, 1)
        record = come(crew, 2)
        crew.workers.fail_lane(record, "no such operator")
        crew.workers.drop(pool, crew.catalog.record(1))
        assert (pool.places[0].state, pool.leaving, crew.workers.pools) == (State.STOPPING, True, {})
        child.exits(0)
        assert pool.closed

    play(nursery, scenario, 1)


def test_a_retiring_lane_is_neither_failed_nor_moved_by_the_death_of_its_workers(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = crew.serve(nursery.last, 1, 2)
        record = crew.catalog.record(1)
        record.state = "UNLOADING"
        for _ in range(2):
            crew.run(child, 1)
            child = await crew.die(child)
            crew.serve(child, 1, 2)
        assert (record.state, record.pool, crew.isolated) == ("UNLOADING", 1, [])
        while not pool.closed:
            child = await crew.die(child)
        assert crew.states() == ["UNLOADING", "FAILED"]

    play(nursery, scenario, 1, 2)
