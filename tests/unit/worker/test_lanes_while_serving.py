"""A worker process that is given lanes, and has them taken away, while it starts and while it serves."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from predictd.server.config.lane import LaneConfig
from predictd.server.control.channel import Channel
from predictd.server.control.memory import Growth, GrowthRequest
from predictd.server.control.messages import (
    AddLanes,
    AnyMessage,
    ClaimTable,
    Collect,
    Hello,
    LaneFailed,
    LaneLoaded,
    LaneLoading,
    Ping,
    Pong,
    RemoveLane,
    Serve,
    Stop,
    Warm,
    WorkerCounts,
    WorkerInit,
)
from predictd.server.supervise.pool import Pool
from predictd.server.transport.claims import CLAIMS_BYTES, read_pulse
from predictd.server.transport.memory import map_shared
from predictd.server.transport.pipes import make_pipe
from tests.fixtures.daemon import REPOSITORY
from tests.fixtures.supervision import PLAN


class Process:
    """A worker process, the supervisor's end of its channel, and the worker's claim table."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.claims: mmap.mmap

    def hear(self) -> AnyMessage:
        """The next message. Memory is refused, which a worker gets over before there are requests."""
        while True:
            message, fds = self.channel.receive()
            for fd in fds:
                os.close(fd)
            if not isinstance(message, GrowthRequest):
                return message
            self.channel.send(Growth(granted=False, reason="none is left"))

    def expect_load(self, lane: int) -> None:
        assert self.hear() == LaneLoading(lane=lane)
        loaded = self.hear()
        assert isinstance(loaded, LaneLoaded)
        assert loaded.lane == lane

    def add(self, *lanes: LaneConfig) -> None:
        self.channel.send(AddLanes(lanes=list(lanes)))

    def answers(self) -> None:
        """Its control thread is alive, and has handled all that was sent before."""
        self.channel.send(Collect(seq=7))
        counts = self.hear()
        assert isinstance(counts, WorkerCounts)

    def comes_round(self) -> None:
        """It answers a ping, and its run loop has nothing to do and comes round."""
        before = read_pulse(self.claims)
        self.channel.send(Ping())
        assert self.hear() == Pong()
        deadline = time.monotonic() + 20
        while (now := read_pulse(self.claims)).turns == before.turns:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert now.busy_since_ns == 0

    def stop(self) -> None:
        self.channel.send(Stop())
        assert self.process.wait(20) == 0


@contextmanager
def working(*lanes: LaneConfig) -> Iterator[Process]:
    """A worker that was told to load these."""
    pool, release = Pool(1, "pool", (PLAN,), 64), make_pipe()
    ours, theirs = Channel.pair()
    arguments = [sys.executable, "-m", "predictd.server.worker.main", str(theirs.fileno()), str(os.getpid())]
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        arguments, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": paths}, cwd=REPOSITORY
    )
    theirs.close()
    one = Process(process, ours)
    try:
        assert isinstance(one.hear(), Hello)
        init = WorkerInit(
            worker=5,
            pool=1,
            pool_name="pool",
            index=0,
            workers=1,
            priorities=len(pool.queues),
            arena_limit_bytes=1 << 26,
            arena_keep_ns=10**9,
            lane_count=len(lanes),
            threads=1,
            cache_directory="",
            cache_limit_bytes=0,
            log_level="error",
        )
        ours.send(init, [*pool.worker_fds(), release.read_fd])
        if lanes:
            one.add(*lanes)
        message, (claims_fd,) = ours.receive()
        assert isinstance(message, ClaimTable)
        with map_shared(claims_fd, CLAIMS_BYTES) as one.claims:
            os.close(claims_fd)
            yield one
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        ours.close()
        pool.close()
        release.close()


def lane(number: int, engine: str = "gated_engine", **parameters: str) -> LaneConfig:
    return LaneConfig(
        lane=number,
        model=f"m{number}",
        version=1,
        path="/models/m",
        engine=f"tests.fixtures.{engine}:load",
        max_batch_size=8,
        max_delay_ns=0,
        max_queue_size=64,
        max_request_rows=64,
        run_timeout_ns=60 * 10**9,
        threads=1,
        parameters=parameters,
    )


def test_lanes_come_while_it_serves_one_after_the_other() -> None:
    with working(lane(1)) as worker:
        worker.expect_load(1)
        assert worker.hear() == Warm()
        worker.channel.send(Serve())
        worker.add(lane(2), lane(3, "faulty_engine", nonsense="1"), lane(4))
        heard = [worker.hear() for _ in range(6)]
        loading = [message.lane for message in heard if isinstance(message, LaneLoading)]
        loaded = [message.lane for message in heard if isinstance(message, LaneLoaded)]
        (failed,) = [message for message in heard if isinstance(message, LaneFailed)]
        assert (loading, loaded, failed.lane) == ([2, 3, 4], [2, 4], 3)
        assert "nonsense" in failed.reason
        worker.stop()


def test_its_run_loop_comes_round_at_each_ping_whatever_it_waits_for() -> None:
    with working(lane(1)) as worker:
        worker.expect_load(1)
        assert worker.hear() == Warm()
        worker.comes_round()
        worker.channel.send(Serve())
        for _ in range(3):
            worker.comes_round()
        worker.stop()
        assert read_pulse(worker.claims).busy_since_ns, "a worker that hangs while it ends is found, too"


def test_lanes_that_come_before_it_may_serve_are_taken_in_already() -> None:
    """Whoever waits with Serve until the worker has them must not wait for ever."""
    with working(lane(1)) as worker:
        worker.expect_load(1)
        assert worker.hear() == Warm()
        worker.add(lane(2))
        worker.expect_load(2)
        worker.channel.send(Serve())
        worker.stop()


def test_lanes_that_come_while_others_load_are_loaded_after_them(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with working(lane(1, load_gate=str(gate))) as worker:
        assert worker.hear() == LaneLoading(lane=1)
        worker.add(lane(2))
        worker.answers()
        gate.touch()
        assert isinstance(worker.hear(), LaneLoaded)
        assert worker.hear() == Warm()
        worker.expect_load(2)
        worker.stop()


def test_a_load_keeps_it_from_nothing_and_what_is_taken_away_meanwhile_is_given_up(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with working(lane(1)) as worker:
        worker.expect_load(1)
        assert worker.hear() == Warm()
        worker.channel.send(Serve())
        worker.add(lane(2, load_gate=str(gate)), lane(3), lane(4))
        assert worker.hear() == LaneLoading(lane=2)
        for number in (2, 3):
            worker.channel.send(RemoveLane(lane=number))
        worker.answers()
        gate.touch()
        assert worker.hear() == LaneFailed(lane=2, reason="the load was given up")
        worker.expect_load(4)
        for number in (4, 1, 99):
            worker.channel.send(RemoveLane(lane=number))
        worker.answers()
        worker.add(lane(5))
        worker.expect_load(5)
        worker.stop()


def test_an_engine_that_listens_stops_its_load_at_once_and_the_next_one_begins(tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    with working(lane(1, load_gate=never, heeds_cancel="true"), lane(2)) as worker:
        assert worker.hear() == LaneLoading(lane=1)
        worker.channel.send(RemoveLane(lane=1))
        assert worker.hear() == LaneFailed(lane=1, reason="the load was given up")
        worker.expect_load(2)
        assert worker.hear() == Warm()
        worker.add(lane(3, load_gate=never, heeds_cancel="true"))
        assert worker.hear() == LaneLoading(lane=3)
        worker.stop()


def test_a_worker_without_lanes_is_warm_at_once() -> None:
    with working() as worker:
        assert worker.hear() == Warm()
        worker.stop()
