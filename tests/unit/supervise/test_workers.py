"""Keeping workers alive, with children that die when the test says so."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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
    Serve,
    Stop,
    Warm,
    WorkerInit,
)
from predictd.server.supervise.limits import Limit, work_limit
from predictd.server.supervise.states import State
from predictd.server.supervise.worker_init import LANES_PER_MESSAGE
from tests.fixtures.keeping import Crew, turns
from tests.fixtures.keeping import play_crew as play
from tests.fixtures.supervision import Nursery, lane_config

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
