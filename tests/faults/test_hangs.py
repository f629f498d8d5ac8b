"""Processes that hang without dying: they are found, killed and replaced, and nobody else's request fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, AsyncClient, Client, InternalError
from predictd.engines.api import Array
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import BLOCK, HANG, HOLD_GIL, HOLD_GIL_LATER
from tests.fixtures.killing import eventually, leaders, serving, workers
from tests.fixtures.limits import NotPermittedError, Starvation, starvation
from tests.fixtures.load import Connections, Job, Load, drive, job
from tests.fixtures.processes import FAULTY, custom

# What finding, killing and starting anew take together on a machine that has other things to do.
RECOVERY_SECONDS = 30.0


def echo(value: float) -> Array:
    return np.full((1, 1), value, np.float32)


def echo_jobs(model: str = "echo", every: int = 8) -> list[Job]:
    """Some keep the engine busy for a moment, so that a worker is at work at any moment."""
    values = [BLOCK if at % every == 0 else float(at) for at in range(400)]
    return [job(model, {"x": echo(value)}, {"y": echo(value)}) for value in values]


@contextlib.asynccontextmanager
async def load_on(daemon: Daemon, jobs: list[Job], callers: int = 8) -> AsyncIterator[Load]:
    """Load as long as the context lasts; all of it must be answered rightly."""
    load, over = Load(), asyncio.Event()
    async with Connections(daemon.grpc) as connections:
        driver = asyncio.create_task(
            drive(connections, itertools.cycle(jobs), load=load, callers=callers, until=over.is_set)
        )
        try:
            yield load
        finally:
            over.set()
            await driver
    load.assert_all_right()


def kills(daemon: Daemon, **labels: str) -> float:
    return daemon.metric("predictd_hang_kills_total", **labels)


def answered(load: Load, number: int) -> bool:
    return load.answered > number


def restored(daemon: Daemon, pool: str, places: int, **killed: float) -> bool:
    """So many kills by reason, and all places serve again."""
    return serving(daemon, pool) == places and all(
        kills(daemon, role="worker", reason=reason) == number for reason, number in killed.items()
    )


@pytest.mark.parametrize("places", [1, 2])
def test_a_stopped_worker_is_replaced_under_load_whether_it_leads_or_runs(
    tmp_path: Path, places: int
) -> None:
    model = custom(tmp_path, "echo", FAULTY, block_seconds=0.02)

    async def scenario(daemon: Daemon) -> int:
        async with load_on(daemon, echo_jobs()) as load:
            for number in range(1, 3):
                await eventually(partial(answered, load, 50 * number), "under load")
                pids = workers(daemon, "echo")
                os.kill((leaders(pids) or pids)[0], signal.SIGSTOP)
                await eventually(partial(restored, daemon, "echo", places, stopped=number), "restored")
                await load.turn_over()
        return load.sent

    with running(model, "--instances", str(places), folder=tmp_path / "run") as daemon:
        daemon.wait_until(lambda: serving(daemon, "echo") == places, 30, "complete")
        sent = asyncio.run(scenario(daemon))
        daemon.wait_metric("predictd_requests_total", sent, status="OK")
        daemon.wait_metric("predictd_worker_restarts_total", 2)
        assert kills(daemon) == 2
        assert daemon.metric("predictd_poison_total") == 0
        assert daemon.wait_said("hangs and is killed: a signal has stopped it", times=2) == 2


def test_an_idle_token_holder_that_is_stopped_does_not_hold_up_the_next_request(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with (
        running(model, "--instances", "2", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, deadline=RECOVERY_SECONDS) as client,
    ):
        daemon.wait_until(lambda: serving(daemon, "echo") == 2, 30, "complete")
        daemon.wait_until(lambda: leaders(workers(daemon, "echo")), 10, "led")
        (leader,) = leaders(workers(daemon, "echo"))
        os.kill(leader, signal.SIGSTOP)
        assert client.predict("echo", {"x": echo(3.0)}).outputs["y"] == 3.0
        daemon.wait_until(lambda: restored(daemon, "echo", 2, stopped=1), RECOVERY_SECONDS, "restored")
        assert daemon.metric("predictd_retries_total") == 0, "it held nothing"


def test_a_worker_that_is_let_go_on_at_once_is_left_alone(tmp_path: Path) -> None:
    """As a debugger does that takes a stack, or a shell that moves a job to the foreground."""
    model = custom(tmp_path, "echo", FAULTY)
    with running(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, retries=NO_RETRIES) as client:
        (worker,) = daemon.pids("workers")
        # However long the pause in the middle becomes: the supervisor sees nothing, and holds nothing against anybody.
        daemon.signal(signal.SIGSTOP)
        os.kill(worker, signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED)
        time.sleep(2)
        os.kill(worker, signal.SIGCONT)
        daemon.signal(signal.SIGCONT)
        for value in range(20):
            assert client.predict("echo", {"x": echo(float(value))}).outputs["y"] == value
        assert daemon.metric("predictd_worker_restarts_total") == kills(daemon) == 0
        assert daemon.pids("workers") == [worker]


def test_a_stopped_front_end_is_replaced_and_the_others_serve_on(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with running(model, "--frontends", "2", folder=tmp_path / "run") as daemon:
        victim, other = daemon.pids("front ends")
        os.kill(victim, signal.SIGSTOP)
        daemon.wait_until(
            lambda: kills(daemon, role="frontend", reason="stopped") == 1, RECOVERY_SECONDS, "killed"
        )
        daemon.wait_until(
            lambda: len(daemon.pids("front ends")) == 2 and daemon.metric("predictd_ready") == 1,
            RECOVERY_SECONDS,
            "complete",
        )
        assert other in daemon.pids("front ends")
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("echo", {"x": echo(1.0)}).outputs["y"] == 1.0
        assert "Traceback" not in daemon.output()


@pytest.mark.parametrize("value", [HANG, HOLD_GIL])
def test_a_request_that_hangs_the_engine_fails_alone(tmp_path: Path, value: float) -> None:
    """Under load, in a batch with others, whether other threads of the worker go on meanwhile or not."""
    model = custom(tmp_path, "echo", FAULTY, block_seconds=0.02)

    async def scenario(daemon: Daemon) -> None:
        async with (
            load_on(daemon, echo_jobs()) as load,
            AsyncClient(daemon.grpc, retries=NO_RETRIES) as client,
        ):
            await eventually(lambda: load.answered > 50, "under load")
            with pytest.raises(InternalError, match="longer than run_timeout"):
                await client.predict("echo", {"x": echo(value)}, deadline=60)
            await eventually(partial(restored, daemon, "echo", 2, run_timeout=2), "restored")

    with running(model, "--instances", "2", "--run-timeout", "1s", folder=tmp_path / "run") as daemon:
        daemon.wait_until(lambda: serving(daemon, "echo") == 2, 30, "complete")
        asyncio.run(scenario(daemon))
        daemon.wait_metric("predictd_poison_total", 1, model="echo")
        daemon.wait_metric("predictd_worker_restarts_total", 2)
        assert kills(daemon) == 2
        assert daemon.wait_said("a run takes more than 1 s (run_timeout)", times=2) == 2


def test_a_model_that_hangs_in_a_shared_pool_moves_out_and_fails_nobody_else(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for name in ("bad", "good"):
        file = custom(repository, name, FAULTY, block_seconds=0.02) / "model.toml"
        limit = "1s" if name == "bad" else "1m"
        file.write_text(f'pool = "both"\nrun_timeout = "{limit}"\n' + file.read_text())

    async def scenario(daemon: Daemon) -> None:
        async with (
            load_on(daemon, echo_jobs("good")) as load,
            AsyncClient(daemon.grpc, retries=NO_RETRIES) as client,
        ):
            await eventually(lambda: load.answered > 50, "under load")
            with pytest.raises(InternalError, match="longer than run_timeout"):
                await client.predict("bad", {"x": echo(HANG)}, deadline=60)
            await eventually(
                lambda: daemon.metric("predictd_lane_state", model="bad", state="READY") == 1, "moved out"
            )
            assert (await client.predict("bad", {"x": echo(4.0)})).outputs["y"] == 4.0

    with running(repository, folder=tmp_path / "run") as daemon:
        asyncio.run(scenario(daemon))
        assert kills(daemon, reason="run_timeout") == kills(daemon) == 2
        daemon.wait_said("bad version 1 kills workers of pool both")


def test_a_worker_that_goes_silent_while_it_runs_nothing_is_replaced(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with (
        running(model, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, deadline=RECOVERY_SECONDS) as client,
    ):
        assert client.predict("echo", {"x": echo(HOLD_GIL_LATER)}).outputs["y"] == HOLD_GIL_LATER
        daemon.wait_until(lambda: restored(daemon, "echo", 1, silent=1), RECOVERY_SECONDS, "restored")
        assert client.predict("echo", {"x": echo(2.0)}).outputs["y"] == 2.0
        daemon.wait_said("it has not answered for 1 s (hang_timeout)")


@contextlib.contextmanager
def burners(number: int) -> Iterator[list[int]]:
    """Process ids of some that take all the CPU they get."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_busy_machine_kills_nobody(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY, block_seconds=0.02)

    async def scenario(daemon: Daemon) -> None:
        async with load_on(daemon, echo_jobs()):
            await asyncio.sleep(4)

    with (
        running(model, "--frontends", "2", "--instances", "2", folder=tmp_path / "run") as daemon,
        burners(8 * (os.cpu_count() or 1)),
    ):
        asyncio.run(scenario(daemon))
        assert kills(daemon) == 0
        assert daemon.metric("predictd_worker_restarts_total") == 0
        daemon.wait_until(
            lambda: daemon.metric("predictd_frontend_loop_lag_seconds_count") > 0, 30, "telling of its loops"
        )


@pytest.fixture
def starving() -> Iterator[Starvation]:
    try:
        with starvation() as group:
            yield group
    except NotPermittedError as error:
        pytest.skip(str(error))


def test_a_worker_that_gets_no_cpu_is_not_taken_to_hang(tmp_path: Path, starving: Starvation) -> None:
    """It wants to answer and cannot, while the supervisor has all the CPU that it needs."""
    model = custom(tmp_path, "echo", FAULTY)
    with running(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, deadline=60) as client:
        (worker,) = daemon.pids("workers")
        with burners(3) as others:
            starving.join(worker, *others)
            time.sleep(5)
            assert kills(daemon) == 0
            starving.end()
        assert client.predict("echo", {"x": echo(2.0)}).outputs["y"] == 2.0
        assert daemon.pids("workers") == [worker]
