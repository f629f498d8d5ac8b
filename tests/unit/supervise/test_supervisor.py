"""The supervisor as a whole, with children that are not processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from predictd.server.control.memory import Growth, GrowthRequest, SegmentAdded
from predictd.server.control.messages import (
    ClaimTable,
    Collect,
    Drained,
    FrontendCounts,
    Hello,
    LaneFailed,
    LaneLoading,
    Ready,
    Serve,
    Warm,
    WorkerCounts,
    WorkerInit,
)
from predictd.server.control.publication import PublishModel
from predictd.server.observe.deltas import FrontendDelta, WorkerDelta
from predictd.server.supervise import supervisor
from predictd.server.transport.abi import ABI_VERSION
from tests.fixtures.keeping import MIB, House, turns
from tests.fixtures.keeping import play_house as play
from tests.fixtures.supervision import FakeChild, Nursery, claims_fd, segment_fd


def told_ready(child: FakeChild) -> list[bool]:
    return [message.ready for message in child.got(Ready)]


def test_the_supervisor_starts_without_numpy_grpc_and_what_writes_the_log() -> None:
    script = "import sys, predictd.server.supervise.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"numpy", "grpc", "onnxruntime", "google.protobuf", "structlog"} & set(loaded.stdout.split())


# Readiness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["worker", "frontend"])
def test_ready_means_all_is_loaded_and_every_port_open_whoever_comes_first(
    nursery: Nursery, first: str
) -> None:
    async def scenario(house: House) -> None:
        one = house.supervisor
        waiting = asyncio.ensure_future(one.wait(lambda: one.settled))
        steps: list[Callable[[], None]] = [
            lambda: house.serve(house.worker, 1),
            lambda: house.listen(house.frontend),
        ]
        for step in steps if first == "worker" else reversed(steps):
            assert not one.ready
            step()
        assert (one.settled, one.ready, one.readiness().reasons) == (True, True, ())
        assert told_ready(house.frontend) == [False, True]
        assert house.worker.got(Serve) == [Serve()]
        assert await asyncio.wait_for(waiting, 10)

    play(nursery, scenario)


def test_a_daemon_of_which_nothing_can_be_served_is_settled_and_not_ready(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.listen(house.frontend)
        house.worker.says(Hello(pid=1, abi=ABI_VERSION))
        house.worker.says(LaneFailed(lane=1, reason="no such file"))
        house.worker.says(Warm())
        assert (house.supervisor.settled, house.supervisor.ready) == (True, False)
        assert [record.reason for record in house.supervisor.catalog.failed] == ["no such file"]

    play(nursery, scenario)


def test_a_front_end_that_comes_back_is_told_that_all_is_ready(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        house.listen(house.frontend)
        first = house.frontend
        await house.die(first)
        assert not house.supervisor.ready, "nobody can be reached"
        assert house.supervisor.readiness().reasons == ("a front end has not opened its port",)
        house.listen(house.frontend)
        assert house.frontend is not first
        assert house.supervisor.ready
        assert told_ready(house.frontend)[-1] is True

    play(nursery, scenario)


def test_one_front_end_of_several_that_restarts_leaves_the_others_ready(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        first, second = nursery.titled("frontend")
        house.serve(house.worker, 1)
        house.listen(first)
        house.listen(second)
        await house.die(first)
        assert house.supervisor.ready
        assert told_ready(second) == [False, True]
        house.listen(house.frontend)
        assert told_ready(house.frontend) == [True]

    play(nursery, scenario, frontends=2)


def test_a_lane_that_is_isolated_later_leaves_the_daemon_ready(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.listen(house.frontend)
        house.serve(house.worker, 1, 2)
        for _ in range(2):
            house.worker.says(LaneLoading(lane=2))
            await house.die(house.worker)
            house.worker.says(Hello(pid=1, abi=ABI_VERSION))
        titles = [child.title for child in nursery.titled("worker")]
        assert "worker m2~1 0" in titles
        assert house.supervisor.ready
        states = {view.name: view.versions[0].state for view in house.frontend.got(PublishModel)}
        assert states == {"m1": "READY", "m2": "LOADING"}
        isolated = nursery.titled("m2~1")[0]
        house.serve(isolated, 2)
        assert house.frontend.got(PublishModel)[-1].versions[0].state == "READY"

    play(nursery, scenario, models=2)


# Growth -------------------------------------------------------------------------------------------------------


def test_growth_is_granted_counted_and_forgotten_with_the_child(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.listen(house.frontend)
        house.serve(house.worker, 1)
        house.worker.says(GrowthRequest(size_bytes=70 * MIB))
        house.frontend.says(GrowthRequest(size_bytes=40 * MIB))
        assert house.worker.got(Growth) == [Growth(granted=True)]
        (refused,) = house.frontend.got(Growth)
        assert (refused.granted, "arena_limit" in refused.reason) == (False, True)
        await house.die(house.worker)
        house.frontend.says(GrowthRequest(size_bytes=40 * MIB))
        assert house.frontend.got(Growth)[-1].granted

    play(nursery, scenario)


def test_a_segment_is_passed_on_and_shows_in_the_gauges(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.listen(house.frontend)
        house.serve(house.worker, 1)
        added = SegmentAdded(seq=0, owner=house.frontend.id, pool=1, segment=0, block_bytes=512, blocks=8)
        house.frontend.says(GrowthRequest(size_bytes=4096))
        house.frontend.says(added, [segment_fd(4096)])
        assert house.worker.got(SegmentAdded)[0].owner == house.frontend.id
        processes = {one.role: one.arena_bytes for one in house.supervisor.gauges().processes}
        assert processes == {"supervisor": 0, "frontend": 4096, "worker": 0}

    play(nursery, scenario)


def test_a_segment_that_nobody_granted_or_that_is_none_goes_to_nobody(nursery: Nursery) -> None:
    """Its readers, front ends and workers, would end."""

    async def scenario(house: House) -> None:
        house.listen(house.frontend)
        house.serve(house.worker, 1)
        added = SegmentAdded(seq=0, owner=house.worker.id, pool=1, segment=0, block_bytes=512, blocks=8)
        with pytest.raises(ValueError, match="a segment has 4096 bytes, and 0 were granted"):
            house.worker.says(added, [segment_fd(4096)])
        house.worker.says(GrowthRequest(size_bytes=4095))
        with pytest.raises(ValueError, match="and 4095 were granted"):
            house.worker.says(added, [segment_fd(4096)])
        house.worker.says(GrowthRequest(size_bytes=4096))
        with pytest.raises(ValueError, match="shared memory has 2048 bytes, 4096 were announced"):
            house.worker.says(added, [segment_fd(2048)])
        house.worker.says(GrowthRequest(size_bytes=4096))
        with pytest.raises(ValueError, match="could shrink"):
            house.worker.says(added, [os.memfd_create("open", os.MFD_CLOEXEC)])
        house.worker.says(GrowthRequest(size_bytes=4096))
        with pytest.raises(ValueError, match="is no memfd"):
            house.worker.says(added, [os.open(os.devnull, os.O_RDONLY)])
        with pytest.raises(ValueError, match="one claim table"):
            house.worker.says(ClaimTable(), [claims_fd()])
        assert house.frontend.got(SegmentAdded) == []

    play(nursery, scenario)


# Failures -----------------------------------------------------------------------------------------------------


def test_a_child_of_another_abi_ends_the_daemon(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.worker.says(Hello(pid=1, abi=ABI_VERSION + 1))
        assert house.supervisor.fatal == (
            f"worker pool 0 speaks version {ABI_VERSION + 1} of the transport, the supervisor {ABI_VERSION}"
        )
        house.supervisor.give_up("a later reason")
        assert "speaks version" in house.supervisor.fatal

    play(nursery, scenario)


def test_a_child_that_is_at_work_does_not_say_hello_again(nursery: Nursery) -> None:
    """Else a worker that a model has taken over could end the daemon by its abi."""

    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        with pytest.raises(TypeError, match="hello before"):
            house.worker.says(Hello(pid=1, abi=ABI_VERSION + 1))
        assert house.supervisor.fatal is None

    play(nursery, scenario)


def test_a_child_that_is_told_to_leave_before_it_said_hello_may_say_it(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        stopping = asyncio.ensure_future(house.supervisor.stop())
        await turns()
        house.worker.says(Hello(pid=1, abi=ABI_VERSION))
        assert house.worker.got(WorkerInit) == []
        for child in (house.worker, house.frontend):
            await house.die(child)
        await asyncio.wait_for(stopping, 10)
        assert house.supervisor.fatal is None

    play(nursery, scenario)


def test_a_callback_that_fails_ends_the_daemon_loudly(
    nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("a bug")

    async def scenario(house: House) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(house.supervisor.tasks.on_loop_error)
        loop.call_exception_handler({"message": "out of descriptors", "socket": None})
        assert house.supervisor.fatal is None
        loop.call_soon(fail)
        assert await asyncio.wait_for(house.supervisor.wait(lambda: house.supervisor.fatal is not None), 10)
        assert house.supervisor.fatal == "KeyError('a bug') in the supervisor. This is a bug"

    play(nursery, scenario)
    assert "KeyError: 'a bug'" in caplog.text


def test_a_task_that_fails_ends_the_daemon_loudly(nursery: Nursery, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise KeyError("a bug")

    async def scenario(house: House) -> None:
        house.supervisor.tasks.spawn(fail())
        await turns()
        assert house.supervisor.fatal == "KeyError('a bug') in the supervisor. This is a bug"

    play(nursery, scenario)
    assert "a task of the supervisor failed" in caplog.text


# Waiting and leaving ------------------------------------------------------------------------------------------


def test_several_wait_at_once_and_none_is_forgotten(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        one, reached = house.supervisor, 0
        tasks = [
            asyncio.ensure_future(one.wait(lambda level=level: reached >= level))  # type: ignore[misc]
            for level in (3, 1, 2, 3, 1)
        ]
        for level in itertools.count(1):
            await turns(3)
            reached = level
            one._check()
            if level == 3:
                break
        assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == [True] * 5

    play(nursery, scenario)


def test_a_wait_ends_with_its_time_out(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        assert not await house.supervisor.wait(lambda: False, 0.01)
        assert await house.supervisor.wait(lambda: True, 0)

    play(nursery, scenario)


def count(house: House) -> None:
    """Answer what was collected."""
    for child in house.alive():
        for message in child.got(Collect):
            if "worker" in child.title:
                child.says(WorkerCounts(seq=message.seq, delta=WorkerDelta(), arena_bytes=0))
            else:
                delta = FrontendDelta()
                child.says(FrontendCounts(seq=message.seq, delta=delta, in_flight=0, arena_bytes=0))


@pytest.mark.parametrize("complete", [True, False])
def test_a_drain_tells_whether_all_was_answered(nursery: Nursery, complete: bool) -> None:
    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        house.listen(house.frontend)
        drain = asyncio.ensure_future(house.supervisor.drain())
        await turns()
        assert not house.supervisor.ready
        assert told_ready(house.frontend) == [False, True, False]
        assert "draining" in house.supervisor.readiness().reasons
        house.frontend.says(Drained(complete=complete))
        await turns()
        count(house)
        assert await asyncio.wait_for(drain, 10) is complete

    play(nursery, scenario)


def test_a_front_end_that_never_says_that_it_is_drained_is_not_waited_for(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        house.listen(house.frontend)
        assert await asyncio.wait_for(house.supervisor.drain(), 10) is False

    play(nursery, scenario, drain_timeout_ns=0)


def test_a_worker_that_dies_in_a_drain_comes_back_to_answer_what_is_left(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        house.listen(house.frontend)
        drain = asyncio.ensure_future(house.supervisor.drain())
        await turns()
        first = house.worker
        await house.die(first)
        assert house.worker is not first
        house.serve(house.worker, 1)
        assert house.worker.got(Serve) == [Serve()]
        house.frontend.says(Drained(complete=True))
        await turns()
        count(house)
        assert await asyncio.wait_for(drain, 10) is True

    play(nursery, scenario)


def test_children_that_do_not_leave_are_killed(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.01)

    async def scenario(house: House) -> None:
        house.serve(house.worker, 1)
        house.listen(house.frontend)
        await asyncio.wait_for(house.supervisor.stop(), 10)
        assert (house.worker.killed, house.frontend.killed) == (True, True)

    play(nursery, scenario)


def test_nothing_is_left_to_count_when_all_has_stopped(nursery: Nursery) -> None:
    async def scenario(house: House) -> None:
        await house.close()
        assert not house.supervisor.tasks._tasks
        assert house.supervisor.gauges().in_flight == {}

    play(nursery, scenario)
