"""Everything at once: impatient clients, and children that die at any moment. Afterwards nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, AsyncClient, PredictdError
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import BLOCK, ENGINE_ERROR
from tests.fixtures.killing import mapped_memory, serving
from tests.fixtures.load import Connections, Load, drive, job
from tests.fixtures.processes import FAULTY, custom

CALLERS = 32
# RESOURCE_EXHAUSTED: the deadline was too short for the queue. INTERNAL: the engine failed as it was asked to, or a
# request was at work in two workers that were killed.
EXPECTED = {
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def rage(daemon: Daemon, seconds: float, seed: int) -> Counter[grpc.StatusCode]:
    """Callers with random deadlines, sizes and priorities while children are killed at random."""
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    codes: Counter[grpc.StatusCode] = Counter()
    clients = [AsyncClient(daemon.grpc, retries=NO_RETRIES) for _ in range(4)]

    async def caller(client: AsyncClient) -> None:
        while time.monotonic() < end:
            x = np.array([[draw.random()] for _ in range(draw.choice([1, 1, 2, 7, 40]))], np.float32)
            x[0] = draw.choice([*[float(x[0, 0])] * 9, BLOCK, ENGINE_ERROR])
            try:
                answer = await client.predict(
                    "echo", {"x": x}, deadline=draw.choice([0.02, 0.1, 5, 30]), priority=draw.randrange(4)
                )
            except PredictdError as error:
                codes[error.code] += 1
                await asyncio.sleep(0.01)  # as a client backs off
                continue
            codes[grpc.StatusCode.OK] += 1
            np.testing.assert_array_equal(answer.outputs["y"], x)

    async def killer() -> None:
        while time.monotonic() < end:
            # A worker that is killed five times in a row before it has done anything is given up, rightly.
            enough = codes[grpc.StatusCode.OK] + 50
            while codes[grpc.StatusCode.OK] < enough and time.monotonic() < end:  # noqa: ASYNC110 - a pace, no wait
                await asyncio.sleep(draw.uniform(0.05, 0.3))
            victims = await asyncio.to_thread(daemon.pids, draw.choice(["workers", "workers", "front ends"]))
            # Gone already, or not yet there.
            with suppress(ProcessLookupError, IndexError):
                os.kill(draw.choice(victims), signal.SIGKILL)

    await asyncio.gather(killer(), *(caller(clients[at % 4]) for at in range(CALLERS)))
    for client in clients:
        await client.close()
    return codes


async def calm(daemon: Daemon) -> Load:
    load = Load()
    xs = np.random.default_rng(3).standard_normal((500, 2, 1), dtype=np.float32)
    async with Connections(daemon.grpc) as connections:
        jobs = [job("echo", {"x": x}, {"y": x}, priority=at % 4) for at, x in enumerate(xs)]
        await drive(connections, jobs, load=load, callers=CALLERS)
    return load


def survive(folder: Path, *, seconds: float, frontends: int, instances: int, seed: int) -> None:
    model = custom(folder, "echo", FAULTY, block_seconds=0.01)
    arguments = (model, "--frontends", str(frontends), "--instances", str(instances))
    with running(*arguments, folder=folder / "run") as daemon:
        codes = asyncio.run(rage(daemon, seconds, seed))
        assert codes.pop(grpc.StatusCode.OK) > 0
        assert set(codes) <= EXPECTED, codes
        daemon.wait_until(
            lambda: serving(daemon, "echo") == instances and daemon.get("/readyz")[0] == 200, 60, "complete"
        )
        daemon.wait_until(
            lambda: daemon.metric("predictd_in_flight") == daemon.metric("predictd_queue_depth") == 0,
            60,
            "idle",
        )
        asyncio.run(calm(daemon)).assert_all_right()
        daemon.wait_until(
            lambda: all(
                mapped_memory(pid, "predictd-claims") == instances for pid in daemon.pids("front ends")
            ),
            30,
            "rid of the memory of dead workers",
        )
        assert "Traceback" not in daemon.output()
        # Two scrapes of one moment: nothing is under way.
        daemon.wait_until(
            lambda: daemon.metric("predictd_accepted_total") == daemon.metric("predictd_requests_total") > 0,
            30,
            "done with all that it accepted",
        )


def test_the_daemon_recovers_from_everything_at_once(tmp_path: Path) -> None:
    survive(tmp_path, seconds=10, frontends=2, instances=2, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10))
def test_minutes_of_it(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, seconds=60, frontends=1 + seed % 3, instances=1 + seed % 2, seed=seed)
