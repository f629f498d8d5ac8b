"""Front ends are killed under load: clients lose what was in flight and nothing else, workers drop what was theirs."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually, mapped_memory, workers
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive

LOST = {grpc.StatusCode.UNAVAILABLE}


def all_ready(daemon: Daemon, number: int) -> bool:
    return len(daemon.pids("front ends")) == number and daemon.get("/readyz") == (200, "ready\n")


async def kill_frontends(daemon: Daemon, jobs: Sequence[Job], *, kills: int, number: int, seed: int) -> Load:
    """Kill front ends, and workers too every third time, while clients send again what was lost."""
    draw = random.Random(seed)
    load = Load()
    done = False

    async def kill_all() -> None:
        nonlocal done
        for turn in range(kills):
            await asyncio.sleep(draw.uniform(0.0, 0.1))
            victims = [draw.choice(daemon.pids("front ends"))]
            if turn % 3 == 2:
                victims.append(draw.choice(workers(daemon, "mlp")))
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            await load.turn_over()
            await eventually(lambda: all_ready(daemon, number), f"ready after kill {turn + 1}")
        done = True

    async with Connections(daemon.grpc) as connections:
        killer = asyncio.create_task(kill_all())
        while not killer.done():
            # Callers that wait for a connection: a front end that is away for a moment costs time, no request.
            await drive(
                connections, itertools.cycle(jobs), load=load, callers=24, until=killer.done, patient=True
            )
        await killer
        assert done
    return load


def survive(folder: Path, *, kills: int, frontends: int, instances: int = 1, seed: int = 1) -> None:
    direct = Direct(models.mlp(folder / "mlp.onnx", width=16, layers=2))
    jobs = dense_jobs("mlp", direct, np.random.default_rng(7), 2000, 16, (1, 2, 4))
    arguments = (folder / "mlp.onnx", "--frontends", str(frontends), "--instances", str(instances))
    with running(*arguments, folder=folder / "run") as daemon:
        load = asyncio.run(kill_frontends(daemon, jobs, kills=kills, number=frontends, seed=seed))
        assert not load.wrong
        assert set(load.codes()) <= LOST, load.failures[:5]
        # No more than what was in flight at a kill can be lost.
        assert len(load.failures) <= kills * 24
        assert load.answered > load.sent // 2
        for pid in daemon.pids("workers"):
            daemon.wait_until(
                lambda pid=pid: mapped_memory(pid, "predictd-requests") <= 2 * frontends,  # type: ignore[misc]
                30,
                "rid of the memory of dead front ends",
            )
        daemon.wait_metric("predictd_in_flight", 0)
        daemon.wait_metric("predictd_queue_depth", 0)
        after = Load()
        asyncio.run(_once(daemon, jobs[:200], after))
        after.assert_all_right()
        assert "Traceback" not in daemon.output()


async def _once(daemon: Daemon, jobs: Sequence[Job], load: Load) -> None:
    async with Connections(daemon.grpc) as connections:
        await drive(connections, jobs, load=load, callers=16)


@pytest.mark.parametrize("frontends", [1, 2])
def test_a_killed_front_end_comes_back(tmp_path: Path, frontends: int) -> None:
    survive(tmp_path, kills=6, frontends=frontends)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("frontends", "instances"), [(1, 1), (1, 2), (2, 2)])
def test_hundreds_of_kills(tmp_path: Path, frontends: int, instances: int) -> None:
    survive(tmp_path, kills=200, frontends=frontends, instances=instances, seed=frontends * 10 + instances)
