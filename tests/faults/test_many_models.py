"""A repository of hundreds of small models: soon ready, in few processes, quiet when idle."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from predictd.client import NO_RETRIES, Client, InternalError, UnavailableError
from predictd.engines.api import Array
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import KILL
from tests.fixtures.load import Connections, Load, drive, job
from tests.fixtures.processes import FAULTY, custom

MODELS = 200
# The aims are 20 s and 1% of a core on an idle machine of 2 cores; this may run beside whatever else there is.
READY_SECONDS = 100
IDLE_SHARE = 0.05
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a daemon takes while nobody asks anything."""

    processes: int
    threads: int
    cpu_share: float
    resident_bytes: int


def many(repository: Path, number: int = MODELS) -> Path:
    """Models `m0` and so on, each with an answer of its own: `x` times its number."""
    repository.mkdir()
    for at in range(number):
        models.affine(repository / f"m{at}.onnx", scale=float(at), bias=0.0)
    return repository


def footprint(daemon: Daemon, seconds: float = 5.0) -> Footprint:
    processes = [psutil.Process(pid) for pid in [daemon.process.pid, *daemon.children()]]

    def used() -> float:
        times = [process.cpu_times() for process in processes]
        return float(sum(each.user + each.system for each in times))

    before, started = used(), time.monotonic()
    time.sleep(seconds)  # the length of the measurement
    share = (used() - before) / (time.monotonic() - started)
    return Footprint(
        processes=len(processes),
        threads=sum(process.num_threads() for process in processes),
        cpu_share=share,
        resident_bytes=sum(process.memory_info().rss for process in processes),
    )


def all_answer(daemon: Daemon, number: int = MODELS) -> None:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        for at in range(number):
            np.testing.assert_array_equal(client.predict(f"m{at}", {"x": X}).outputs["y"], X * at)


def serve_many(folder: Path, **options: Any) -> None:
    repository = many(folder / "models")
    started = time.monotonic()
    with running(repository, folder=folder / "run", **options) as daemon:
        seconds = time.monotonic() - started
        all_answer(daemon)
        taken = footprint(daemon)
        print(f"{MODELS} models are ready in {seconds:.1f} s; {taken}")
        assert seconds < READY_SECONDS
        assert taken.processes < 12
        assert taken.cpu_share < IDLE_SHARE
        assert daemon.metric("predictd_lane_state", state="READY") == MODELS
        all_answer(daemon)


def test_200_models_are_served_by_a_handful_of_processes(tmp_path: Path) -> None:
    serve_many(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A repository that is too large for a process each."""
    return many(tmp_path / "models", 40)


def test_a_model_that_crashes_its_pool_when_loaded_is_named_and_the_others_serve(
    tmp_path: Path, shared: Path
) -> None:
    custom(shared, "bad", FAULTY, crash_on_load="true")
    with (
        running(shared, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        bad = client.model("bad").versions[0]
        assert bad.state == "FAILED"
        assert "killed by SIGKILL" in bad.reason
        daemon.wait_said("bad version 1 kills workers of pool shared")
        daemon.wait_said("model bad version 1 failed")
        status, text = daemon.get("/readyz")
        assert status == 200
        assert "bad version 1 FAILED" in text
        with pytest.raises(UnavailableError, match="bad"):
            client.predict("bad", {"x": np.ones((1, 1), np.float32)})
        all_answer(daemon, 40)
        assert daemon.metric("predictd_lane_state", model="bad", state="FAILED") == 1
        assert daemon.metric("predictd_lane_state", state="READY") == 40


async def crash_among(daemon: Daemon, crash: Array) -> Load:
    """A request that crashes its engine among 300 for the other models of the pool."""
    jobs = [job(f"m{at % 40}", {"x": X}, {"y": X * (at % 40)}) for at in range(300)]
    jobs.insert(150, job("bad", {"x": crash}, {}))
    load = Load()
    async with Connections(daemon.grpc) as connections:
        await drive(connections, jobs, load=load, callers=100)
    return load


def test_a_model_that_crashes_its_pool_when_run_gets_a_pool_of_its_own(tmp_path: Path, shared: Path) -> None:
    custom(shared, "bad", FAULTY)
    with (
        running(shared, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        one = np.ones((1, 1), np.float32)
        load = asyncio.run(crash_among(daemon, one * KILL))
        assert not load.wrong
        (failure,) = load.failures
        assert failure.code is grpc.StatusCode.INTERNAL
        assert "crashes the engine of model 'bad'" in failure.details
        daemon.wait_said("bad version 1 kills workers of pool shared")
        all_answer(daemon, 40)
        daemon.wait_until(
            lambda: daemon.metric("predictd_lane_state", model="bad", state="READY") == 1, 30, "isolated"
        )
        # From here on a crash is no other model's trouble.
        restarts = daemon.metric("predictd_worker_restarts_total", pool="shared")
        assert client.predict("bad", {"x": one}).outputs["y"] == 1
        with pytest.raises(InternalError):
            client.predict("bad", {"x": one * KILL})
        daemon.wait_metric("predictd_worker_restarts_total", restarts, pool="shared")
        all_answer(daemon, 40)
        assert client.predict("bad", {"x": one}).outputs["y"] == 1
        assert "Traceback" not in daemon.output()
