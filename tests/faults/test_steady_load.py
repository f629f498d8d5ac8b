"""Steady load at 40% of what the daemon can do, while its workers are killed and frozen: nobody notices but the log."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually, serving, workers
from tests.fixtures.limits import NotPermittedError, no_memory
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive, job, pace

PLACES = 2
SHARE = 0.4
Blow = tuple[str, Callable[[int], None]]
BETWEEN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the load, and how long the pool took to be complete again after each blow."""

    load: Load
    recoveries_seconds: list[float]


async def capacity(connections: Connections, jobs: Sequence[Job], load: Load, seconds: float) -> float:
    """Answers a second with more callers than it takes."""
    started = time.monotonic()
    await drive(
        connections,
        itertools.cycle(jobs),
        load=load,
        callers=8,
        until=lambda: time.monotonic() > started + seconds,
    )
    return load.answered / (time.monotonic() - started)


def complete(daemon: Daemon, restarts: int) -> bool:
    done = daemon.metric("predictd_worker_restarts_total", pool="target")
    return done >= restarts and serving(daemon, "target") == PLACES


def by(number: signal.Signals) -> Blow:
    """A signal."""
    return number.name, lambda pid: os.kill(pid, number)


KILL, SEGV, STOP = by(signal.SIGKILL), by(signal.SIGSEGV), by(signal.SIGSTOP)


@pytest.fixture
def memory() -> Iterator[Blow]:
    """A memory limit; SIGKILL by other hands where none can be set."""
    try:
        with no_memory() as deny:
            yield "no memory", deny
    except NotPermittedError as error:
        print(f"{error}: SIGKILL instead")
        yield KILL


async def strike(daemon: Daemon, load: Load, blows: Sequence[Blow], seed: int) -> list[float]:
    """Deal each blow to a worker drawn by lot. The next one comes once the last is got over, as a request that two
    deaths hit in a row is given up, rightly."""
    draw = random.Random(seed)
    recoveries = []
    for name, deal in blows:
        before = await asyncio.to_thread(daemon.metric, "predictd_worker_restarts_total", pool="target")
        started = time.monotonic()
        deal(draw.choice(workers(daemon, "target")))
        await eventually(partial(complete, daemon, int(before) + 1), f"complete after {name}")
        recoveries.append(time.monotonic() - started)
        await load.turn_over()
        await asyncio.sleep(max(0.0, BETWEEN_SECONDS * draw.uniform(0.8, 1.2) - recoveries[-1]))
    return recoveries


async def serve_through(daemon: Daemon, jobs: Sequence[Job], blows: Sequence[Blow], seed: int) -> Outcome:
    load = Load()
    async with Connections(daemon.grpc) as connections:
        rate = SHARE * await capacity(connections, jobs, load, 3)
        load.longest_seconds = 0.0
        striker = asyncio.create_task(strike(daemon, load, blows, seed))
        await pace(connections, itertools.cycle(jobs), load=load, rate=rate, until=striker.done)
        return Outcome(load, await striker)


def survive(folder: Path, jobs: Sequence[Job], blows: Sequence[Blow], *arguments: str) -> Outcome:
    options = ("--instances", str(PLACES), "--run-timeout", "1s", *arguments)
    with running(next(folder.glob("target*")), *options, folder=folder / "run") as daemon:
        daemon.wait_until(lambda: serving(daemon, "target") == PLACES, 60, "complete")
        outcome = asyncio.run(serve_through(daemon, jobs, blows, seed=1))
        outcome.load.assert_all_right()
        daemon.wait_metric("predictd_requests_total", outcome.load.sent)
        daemon.wait_metric("predictd_requests_total", outcome.load.sent, status="OK")
        daemon.wait_metric("predictd_in_flight", 0)
        daemon.wait_metric("predictd_queue_depth", 0)
        assert daemon.metric("predictd_poison_total") == 0
        frozen = sum(blow is STOP for blow in blows)
        daemon.wait_metric("predictd_hang_kills_total", frozen, reason="stopped")
        assert "Traceback" not in daemon.output()
    print(
        f"{outcome.load.sent} requests, the slowest {outcome.load.longest_seconds:.2f} s; complete again after "
        + ", ".join(
            f"{seconds:.2f} s ({name})"
            for (name, _), seconds in zip(blows, outcome.recoveries_seconds, strict=True)
        )
    )
    return outcome


def test_killed_and_frozen_workers_cost_no_request(tmp_path: Path, memory: Blow) -> None:
    direct = Direct(models.mlp(tmp_path / "target.onnx", width=256))
    jobs = dense_jobs("target", direct, np.random.default_rng(3), 400, 256, (1, 2, 4))
    survive(tmp_path, jobs, (KILL, STOP, SEGV, STOP, memory))


def resnet_jobs(path: Path, number: int) -> list[Job]:
    """Images with the answers of the runtime itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    random_ = np.random.default_rng(4)
    jobs = []
    for _ in range(number):
        image = random_.random((1, 3, 224, 224), dtype=np.float32)
        (scores,) = session.run(None, {"gpu_0/data_0": image})
        jobs.append(job("target", {"gpu_0/data_0": image}, {"gpu_0/softmax_1": np.asarray(scores)}))
    return jobs


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_minute_of_a_model_of_the_size_of_resnet50(tmp_path: Path, memory: Blow) -> None:
    jobs = resnet_jobs(models.resnet50(tmp_path / "target.onnx"), 16)
    blows = [(KILL, SEGV, memory)[at % 3] for at in range(28)]
    blows[9], blows[19] = STOP, STOP
    slack = max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    outcome = survive(tmp_path, jobs, blows, "--max-batch-size", "4")
    # On a machine that has nothing else to do; others that compete with it make it slower.
    assert outcome.load.longest_seconds < 2 * slack
