"""Workers are killed under load: they come back, and every request is answered as if nothing had happened."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import BLOCK
from tests.fixtures.killing import kill_workers, mapped_memory, serving
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive, job
from tests.fixtures.processes import FAULTY, custom

RANDOM = np.random.default_rng(5)


def echo_jobs(folder: Path, number: int = 3000) -> list[Job]:
    """For an engine that answers what it is asked and is busy most of the time, over all priorities."""
    custom(folder, "target", FAULTY, block_seconds=0.01)
    jobs = []
    for at in range(number):
        x = RANDOM.standard_normal((1 + at % 3, 1), dtype=np.float32)
        if at % 8 == 0:
            x[-1] = BLOCK
        jobs.append(job("target", {"x": x}, {"y": x}, priority=at % 4))
    return jobs


def shape_jobs(folder: Path, number: int = 3000) -> list[Job]:
    """For a real model and in many shapes, so that each look at the queue leaves something over."""
    direct = Direct(models.dynamic_dims(folder / "target.onnx"))
    parts = [dense_jobs("target", direct, RANDOM, number // 6, length, (1, 2, 4)) for length in range(30, 36)]
    return [each for turn in zip(*parts, strict=True) for each in turn]


async def kill_under_load(
    daemon: Daemon, jobs: Sequence[Job], *, kills: int, places: int, seed: int, callers: int
) -> Load:
    load = Load()
    async with Connections(daemon.grpc) as connections:
        killer = asyncio.create_task(
            kill_workers(daemon, "target", load, kills=kills, places=places, seed=seed)
        )
        await drive(connections, itertools.cycle(jobs), load=load, callers=callers, until=killer.done)
        await killer
    return load


def survive(
    folder: Path,
    jobs: Sequence[Job],
    *,
    kills: int,
    places: int,
    frontends: int = 1,
    seed: int = 1,
    callers: int = 64,
    **options: Any,
) -> None:
    """Kill, and look for what was lost: requests, memory and descriptors."""
    repository = next(folder.glob("target*"))
    arguments = (repository, "--instances", str(places), "--frontends", str(frontends))
    with running(*arguments, folder=folder / "run", **options) as daemon:
        daemon.wait_until(lambda: serving(daemon, "target") == places, 30, "complete")
        stayers = [psutil.Process(pid) for pid in daemon.pids("supervisor") + daemon.pids("front ends")]
        descriptors = [process.num_fds() for process in stayers]
        load = asyncio.run(
            kill_under_load(daemon, jobs, kills=kills, places=places, seed=seed, callers=callers)
        )
        load.assert_all_right()
        daemon.wait_metric("predictd_requests_total", load.sent, status="OK")
        daemon.wait_until(
            lambda: daemon.metric("predictd_retries_total") > 0, 30, "counting what was put back"
        )
        assert daemon.metric("predictd_poison_total") == 0
        daemon.wait_metric("predictd_queue_depth", 0)
        daemon.wait_metric("predictd_in_flight", 0)
        assert "Traceback" not in daemon.output()
        for process, before in zip(stayers, descriptors, strict=True):
            # A worker's own descriptors are a few; those of so many dead ones would be many. A new segment
            # of the front end's, and connections that linger, may come on top.
            daemon.wait_until(
                lambda process=process, before=before: process.num_fds() < before + kills,  # type: ignore[misc]
                30,
                f"rid of descriptors: {process.cmdline()}",
            )
        daemon.wait_until(
            lambda: all(mapped_memory(pid, "predictd-claims") == places for pid in daemon.pids("front ends")),
            30,
            "rid of the memory of dead workers",
        )


@pytest.mark.parametrize("places", [1, 2])
def test_a_killed_worker_comes_back_and_nothing_is_lost(tmp_path: Path, places: int) -> None:
    survive(tmp_path, echo_jobs(tmp_path), kills=8, places=places)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("prepare", [echo_jobs, shape_jobs])
@pytest.mark.parametrize(("places", "frontends"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_hundreds_of_kills(
    tmp_path: Path, prepare: Callable[[Path], list[Job]], places: int, frontends: int
) -> None:
    jobs = prepare(tmp_path)
    survive(tmp_path, jobs, kills=200, places=places, frontends=frontends, seed=places * 10 + frontends)
