"""Keeping workers alive, with children that die when the test says so."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from predictd.server.config.settings import Settings
from predictd.server.control.messages import (
    AddLanes,
    Hello,
    LaneFailed,
    LaneLoading,
    PoolGone,
    Ready,
    RemoveLane,
    Serve,
    Stop,
    Warm,
    WorkerInit,
)
from predictd.server.supervise import starter
from predictd.server.supervise.limits import Limit, work_limit
from predictd.server.supervise.states import State
from predictd.server.supervise.worker_init import LANES_PER_MESSAGE
from predictd.server.transport.records import TICKET_STRUCT
from tests.fixtures.keeping import Crew, turns
from tests.fixtures.supervision import FakeChild, Nursery, lane_config

Scenario = Callable[[Crew], Coroutine[Any, Any, None]]


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Nursery:
    one = Nursery()
    monkeypatch.setattr(starter, "Child", one)
    return one


def play(nursery: Nursery, scenario: Scenario, *lanes: int, load_timeout_seconds: float = 600) -> None:
    async def run() -> None:
        crew = Crew(nursery, lanes or (1,), load_timeout_seconds)
        try:
            await scenario(crew)
        finally:
            crew.close()

    asyncio.run(run())


# Coming up ----------------------------------------------------------------------------------------------------


def test_a_worker_is_told_who_it_is_what_to_load_and_when_to_serve(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = nursery.last
        assert (child.title, child.environment["LANG"]) == ("worker pool 0", "C")
        assert (child.cpus, child.numa_nodes) == ((0,), (1,))
        assert pool.places[0].state is State.STARTING
        crew.hello(child)
        ((init, fds), (lanes, _)) = child.sent
        assert isinstance(init, WorkerInit)
        assert (init.worker, init.pool, init.index, init.lane_count, fds) == (child.id, 1, 0, 1, 9)
        assert lanes == AddLanes(lanes=[lane_config(1)])
        crew.load(child, 1)
        assert (pool.places[0].state, crew.states()) == (State.LOADING, ["LOADING"])
        child.says(Warm())
        assert (pool.places[0].state, crew.states()) == (State.SERVING, ["READY"])
        assert (child.got(Serve), crew.published) == ([Serve()], ["m1"])
        assert (crew.catalog.record(1).load_seconds or 0) > 0

    play(nursery, scenario)


def test_many_lanes_are_told_in_several_messages(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.hello(nursery.last)
        parts = [message.lanes for message in child.got(AddLanes)]
        assert [len(part) for part in parts] == [LANES_PER_MESSAGE, LANES_PER_MESSAGE, 1]
        assert [lane.lane for part in parts for lane in part] == list(range(1, 102))
        assert child.got(WorkerInit)[0].lane_count == 101

    play(nursery, scenario, *range(1, 102))


def test_a_lane_is_published_once_every_worker_of_its_pool_came_up_or_fell(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=3)
        first, second, third = nursery.children
        crew.serve(first, 1)
        crew.hello(second)
        assert crew.published == []
        await crew.die(second)
        assert crew.published == []
        crew.serve(third, 1)
        assert crew.published == ["m1"], "nobody waits for the one that fell"

    play(nursery, scenario)


def test_a_lane_that_cannot_be_loaded_fails_alone(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.hello(nursery.last)
        child.says(LaneFailed(lane=1, reason="no such file"))
        crew.load(child, 2)
        child.says(Warm())
        assert crew.states() == ["FAILED", "READY"]
        assert crew.catalog.record(1).reason == "no such file"
        assert crew.published == ["m1", "m2"]

    play(nursery, scenario, 1, 2)


def test_a_pool_without_anything_to_serve_is_stopped(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.watch_pool()
        pool = crew.start(workers=2)
        first, second = nursery.children
        crew.hello(first)
        for message in (LaneFailed(lane=1, reason="no such file"), Warm()):
            first.says(message)
        assert (first.got(Stop), second.killed) == ([Stop()], True)
        first.exits(0)
        assert not pool.closed
        second.exits(-9)
        assert pool.closed
        assert crew.frontend.got(PoolGone) == [PoolGone(pool=1, reason="its workers are stopped")]
        await turns()
        assert len(nursery.children) == 2, "nothing is started again"

    play(nursery, scenario)


def test_a_worker_that_is_not_warm_in_time_is_killed_and_comes_back(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        child = crew.hello(nursery.last)
        child.says(LaneLoading(lane=1))
        await turns()
        assert child.killed
        crew.workers._settings = replace(crew.workers._settings, load_timeout_seconds=600)
        second = await crew.die(child)
        assert second is not child
        crew.serve(second, 1)
        await turns()
        assert not second.killed

    play(nursery, scenario, load_timeout_seconds=0)


def test_a_worker_that_does_not_even_say_hello_is_killed_in_time(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        await turns()
        assert nursery.last.killed
        assert crew.workers.load_timeouts == 1

    play(nursery, scenario, load_timeout_seconds=0)


def test_a_run_has_the_time_of_its_lane_and_whatever_else_that_of_a_load(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        place = crew.start().places[0]
        settings = Settings(run_timeout_ns=60 * 10**9, load_timeout_ns=600 * 10**9)
        limit = partial(work_limit, settings, crew.catalog, place)
        record = crew.catalog.record(2)
        record.config = msgspec.structs.replace(record.config, run_timeout_ns=3 * 10**9)
        assert limit() == Limit(600, "load_timeout")
        child = crew.serve(nursery.last, 1, 2)
        assert limit() == Limit(600, "load_timeout")
        for lane, seconds in ((1, 60), (2, 3), (77, 60)):
            crew.run(child, lane)
            assert limit() == Limit(seconds, "run_timeout")

    play(nursery, scenario, 1, 2)


def test_a_restarted_worker_that_cannot_load_what_others_serve_tries_again(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        first, second = nursery.children
        crew.serve(first, 1)
        crew.serve(second, 1)
        third = crew.hello(await crew.die(second))
        third.says(LaneLoading(lane=1))
        third.says(LaneFailed(lane=1, reason="the file is half written"))
        assert (third.killed, crew.states()) == (True, ["READY"])
        crew.serve(await crew.die(third), 1)
        assert crew.states() == ["READY"]

    play(nursery, scenario)


# Dying --------------------------------------------------------------------------------------------------------


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


# Stopping -----------------------------------------------------------------------------------------------------


def test_those_at_work_are_asked_and_those_that_only_start_are_killed(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start(workers=4)
        starting, loading, serving, dead = nursery.children
        crew.hello(loading)
        crew.serve(serving, 1)
        dead.exits(-9)
        crew.workers.stop()
        assert [child.killed for child in nursery.children] == [True, True, False, False]
        assert serving.got(Stop) == [Stop()]
        assert [place.state for place in pool.places] == [State.STOPPING] * 3 + [State.STOPPED]
        for child in (starting, loading, serving):
            child.exits(0)
        await turns()
        assert len(nursery.children) == 4
        assert crew.workers.children() == []
        assert pool.gone

    play(nursery, scenario)


def test_what_a_worker_says_after_it_was_told_to_stop_changes_nothing(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start(workers=2)
        starting, loading = nursery.children
        crew.hello(loading)
        crew.workers.stop()
        starting.says(Hello(pid=1, abi=1))
        loading.says(LaneFailed(lane=1, reason="told to stop"))
        loading.says(Warm())
        assert (starting.sent, loading.got(Serve), crew.states()) == ([], [], ["LOADING"])

    play(nursery, scenario)


def test_a_worker_that_dies_while_all_are_killed_is_not_started_again(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        pool = crew.start()
        child = crew.serve(nursery.last, 1)
        crew.workers.kill()
        assert child.killed
        await crew.die(child)
        assert (len(nursery.children), pool.places[0].state) == (1, State.STOPPED)

    play(nursery, scenario)


def test_a_message_that_no_worker_sends_is_a_bug(nursery: Nursery) -> None:
    async def scenario(crew: Crew) -> None:
        crew.start()
        with pytest.raises(TypeError, match=r"^a worker sent Ready. This is a bug.$"):
            nursery.last.says(Ready(ready=True))

    play(nursery, scenario)
