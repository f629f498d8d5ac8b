"""What others notice of attacks, with attackers of the same priority and with niced ones.

It is shown, and judged where the front end is the one in C and the attackers are niced: what those of the same
priority take of the CPUs is nothing that a server could do about.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from tests.bench import proc
from tests.fixtures import models
from tests.fixtures.abuse import ATTACKS, MIB, idle_connections
from tests.fixtures.daemon import REPOSITORY, Daemon, running
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive, send

WIDTH = 64
RATE = 100.0
SECONDS = 3.0
ROUNDS = 2
NICE = 19
NATIVE = os.environ.get("PREDICTD_FRONTEND") == "native"
# The slowest hundredth of others' requests may take twice as long as without, and so long on any machine.
TIMES = 2.0
QUICK_SECONDS = 0.01
KEPT_BYTES = 96 * MIB
IDLE = 10_000
IDLE_CONNECTIONS = f"{IDLE} idle connections"


async def ask(connections: Connections, jobs: Iterator[Job]) -> list[float]:
    """Requests at a steady pace, whatever becomes of those before. How long each took."""
    took: list[float] = []
    start = time.monotonic()

    async def one(number: int, job: Job) -> None:
        due = start + number / RATE
        await asyncio.sleep(due - time.monotonic())
        await send(connections.calls[number % len(connections.calls)], job.request)
        took.append(time.monotonic() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(SECONDS * RATE)):
            group.create_task(one(number, next(jobs)))
    return took


@contextmanager
def attackers(target: str, name: str, nice: int) -> Iterator[None]:
    """A process that attacks, a new one each time."""
    if name == IDLE_CONNECTIONS:
        idle = idle_connections(target, IDLE)
        try:
            yield
        finally:
            for connection in idle:
                connection.close()
        return
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    command = ["nice", "-n", str(nice), sys.executable, "-m", "tests.fixtures.abuse", target, name]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            yield
        finally:
            process.kill()


def p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


async def suffer(
    daemon: Daemon, jobs: Sequence[Job], name: str, nice: int
) -> tuple[list[float], list[float]]:
    calm: list[float] = []
    attacked: list[float] = []
    endless = itertools.cycle(jobs)
    async with Connections(daemon.grpc) as connections:
        for _ in range(ROUNDS):
            calm += await ask(connections, endless)
            with attackers(daemon.grpc, name, nice):
                # Until the attacker has begun, which takes it a second or two.
                await asyncio.sleep(2)
                attacked += await ask(connections, endless)
            await asyncio.sleep(0.5)
    return calm, attacked


def anonymous_bytes(daemon: Daemon) -> float:
    return daemon.metric("predictd_process_anonymous_bytes", role="frontend")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, list[Job]]]:
    folder = tmp_path_factory.mktemp("latency")
    direct = Direct(models.mlp(folder / "m.onnx", width=WIDTH))
    jobs = dense_jobs("m", direct, np.random.default_rng(3), 100, WIDTH, (1, 2, 4))
    options = ("--frontends", "1", "--upload-limit", "256MiB", "--max-connections", str(IDLE + 500))
    with running(folder / "m.onnx", *options, folder=folder / "run") as daemon:
        yield daemon, jobs


async def warm_up(daemon: Daemon, jobs: Sequence[Job]) -> None:
    load = Load()
    async with Connections(daemon.grpc) as connections:
        await drive(connections, [*jobs] * 3, load=load, callers=8)
    load.assert_all_right()


@pytest.mark.soak
@pytest.mark.parametrize("nice", [NICE, 0], ids=["niced", "equal"])
@pytest.mark.parametrize("name", [*ATTACKS, IDLE_CONNECTIONS])
def test_nothing_stays_of_attacks_and_others_notice_little(
    served: tuple[Daemon, list[Job]], name: str, nice: int
) -> None:
    daemon, jobs = served
    # On a machine that has nothing else to do; others that compete with it make it slower.
    slack = max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    asyncio.run(warm_up(daemon, jobs))
    pids = daemon.children()
    before = anonymous_bytes(daemon), proc.memory_of(pids).rss_bytes
    calm, attacked = asyncio.run(suffer(daemon, jobs, name, nice))
    print(
        f"| {name} | {'niced' if nice else 'equal'} | {p99(calm) * 1e3:.1f} | {p99(attacked) * 1e3:.1f} "
        f"| {p99(attacked) / p99(calm):.1f} | {(anonymous_bytes(daemon) - before[0]) / MIB:.0f} |"
    )
    if NATIVE and nice:
        assert p99(attacked) < slack * max(TIMES * p99(calm), QUICK_SECONDS)
    asyncio.run(warm_up(daemon, jobs))
    assert daemon.children() == pids
    daemon.wait_until(lambda: anonymous_bytes(daemon) - before[0] < KEPT_BYTES, 60, "back to where it was")
    daemon.wait_metric("predictd_in_flight", 0)
    assert daemon.metric("predictd_frontend_restarts_total") == 0
