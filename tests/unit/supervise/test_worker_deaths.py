"""Workers that die: they come back, are given up, and what killed them is isolated."""

from __future__ import annotations

import struct

import pytest

from predictd.server.control.messages import AddLanes, LaneFailed, LaneLoading, PoolGone, RemoveLane
from predictd.server.supervise.states import State
from predictd.server.transport.records import TICKET_STRUCT
from tests.fixtures.keeping import Crew, turns
from tests.fixtures.keeping import play_crew as play
from tests.fixtures.supervision import FakeChild, Nursery


def test_a_dead_worker_comes_back_as_a_new_incarnation(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        first = crew.serve(nursery.last, 1)
        second = await crew.die(first)
        assert (second.id, second.title) == (first.id + 1, first.title)
        assert (crew.gone, pool.places[0].restarts) == ([first.id], 1)
        assert pool.places[0].segments == []
        crew.serve(second, 1)
        assert crew.states() == ["READY"]
        assert crew.published == ["m1"]

    play(nursery, scenario)


def test_a_crash_loop_fails_the_lanes_and_gives_the_pool_up(
    nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(crew: Crew) -> None:
        crew.watch_pool()
        pool = crew.start()
        for _ in range(5):
            child = crew.hello(nursery.last)
            child.says(LaneLoading(lane=1))
            await crew.die(child, -11)
        assert len(nursery.children) == 5
        assert (pool.places[0].state, pool.closed, crew.states()) == (State.FAILED, True, ["FAILED"])
        reason = "its worker died 5 times in a row: killed by SIGSEGV while it worked on m1"
        assert crew.catalog.record(1).reason == reason
        assert crew.frontend.got(PoolGone) == [PoolGone(pool=1, reason=reason)]
        assert crew.published == ["m1"]
        assert crew.isolated == [], "it is alone already"

    play(nursery, scenario)
    assert "model m1 version 1 failed: its worker died 5 times in a row" in caplog.text


def test_a_worker_that_did_something_is_never_given_up(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        for _ in range(12):
            child = crew.serve(nursery.last, 1)
            crew.run(child, 1)
            crew.claims[child.id].clear()
            await crew.die(child)
        assert (pool.places[0].restarts, pool.places[0].barren_crashes) == (12, 0)
        assert len(nursery.children) == 13

    play(nursery, scenario)


def test_a_place_that_is_given_up_leaves_the_others_at_work(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start(workers=2)
        first, second = nursery.children
        for _ in range(5):
            first = await crew.die(first)
        assert [place.state for place in pool.places] == [State.FAILED, State.STARTING]
        crew.serve(second, 1)
        assert crew.states() == ["READY"]
        assert not pool.closed

    play(nursery, scenario)


def test_the_lanes_are_published_when_the_last_that_was_awaited_is_given_up(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        first, second = nursery.children
        crew.serve(second, 1)
        assert crew.states() == ["LOADING"]
        for _ in range(5):
            first = await crew.die(first)
        assert crew.states() == ["READY"]

    play(nursery, scenario)


@pytest.mark.parametrize("loading", [True, False])
def test_a_lane_that_kills_a_shared_pool_twice_is_isolated(nursery: Nursery, loading: bool) -> None:
    async def kill(crew: Crew, child: FakeChild) -> None:
        if loading:
            crew.hello(child)
            crew.load(child, 1)
            child.says(LaneLoading(lane=2))
        else:
            crew.serve(child, 1, 2, 3)
            crew.run(child, 2)
        await crew.die(child, -11)

    async def scenario(crew: Crew) -> None:
        crew.start()
        await kill(crew, nursery.last)
        assert crew.isolated == []
        last = nursery.last
        await kill(crew, last)
        assert [record.config.lane for record in crew.isolated] == [2]
        record = crew.catalog.record(2)
        assert (record.state, record.pool) == ("LOADING", 99)
        assert "killed workers of the shared pool pool (killed by SIGSEGV)" in record.reason
        crew.serve(nursery.last, 1, 3)
        assert [lane.lane for lane in nursery.last.got(AddLanes)[0].lanes] == [1, 3]
        assert crew.states() == ["READY", "LOADING", "READY"]
        assert last.got(AddLanes)[0].lanes[-1].lane == 2, "what killed is loaded last"

    play(nursery, scenario, 1, 2, 3)


def test_a_lane_that_is_isolated_is_kept_by_no_worker_of_its_old_pool(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=3)
        first, survivor, slow = nursery.children
        crew.hello(slow)
        crew.serve(survivor, 1, 2)
        for _ in range(2):
            first = crew.serve(first, 1, 2)
            crew.run(first, 2)
            first = await crew.die(first, -11)
        assert [record.config.lane for record in crew.isolated] == [2]
        assert survivor.got(RemoveLane) == slow.got(RemoveLane) == [RemoveLane(lane=2)]
        # What those still say of it is nothing to the pool that it is in now.
        slow.says(LaneFailed(lane=2, reason="the load was given up"))
        crew.load(slow, 2)
        record = crew.catalog.record(2)
        assert record.state == "LOADING"
        assert slow.id not in record.loaded_by

    play(nursery, scenario, 1, 2)


def test_a_lane_that_one_worker_cannot_load_is_kept_by_none(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        able, unable = nursery.children
        crew.serve(able, 1, 2)
        crew.hello(unable)
        unable.says(LaneFailed(lane=2, reason="no memory"))
        assert crew.states() == ["LOADING", "FAILED"]
        assert able.got(RemoveLane) == [RemoveLane(lane=2)]

    play(nursery, scenario, 1, 2)


def test_tickets_that_only_waited_are_nobodys_fault(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        for _ in range(3):
            child = crew.serve(nursery.last, 1, 2)
            crew.claims[child.id].hold(struct.pack(TICKET_STRUCT, 1, 0, 2, 1, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0))
            await crew.die(child)
        assert crew.isolated == []

    play(nursery, scenario, 1, 2)


def test_a_worker_that_wrote_over_its_claims_is_replaced_like_any_other(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.serve(nursery.last, 1)
        crew.claims[child.id].hold(b"\xfe" * 64 * 3)
        crew.claims[child.id]._map[8:12] = b"\xfe" * 4
        await crew.die(child)
        assert nursery.last is not child
        crew.serve(nursery.last, 1)
        assert crew.states() == ["READY"]

    play(nursery, scenario)


def test_a_worker_that_cannot_be_started_is_tried_again_and_given_up_in_the_end(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        nursery.refuse = OSError(11, "Resource temporarily unavailable")
        pool = crew.start()
        await turns(3)
        assert [place.state for place in pool.places] == [State.BACKOFF]
        nursery.refuse = None
        await turns()
        crew.serve(nursery.last, 1)
        nursery.refuse = OSError(24, "Too many open files")
        nursery.last.exits(-9)
        await turns(20)
        assert [place.state for place in pool.places] == [State.FAILED]
        assert crew.catalog.record(1).reason.endswith("it cannot be started: Too many open files")

    play(nursery, scenario)
