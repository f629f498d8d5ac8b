"""SIGTERM under load, and whatever else may go wrong at that moment: what was accepted is answered."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.fixtures.daemon import Daemon, running
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.killing import eventually
from tests.fixtures.load import Connections, Job, Load, drive, job
from tests.fixtures.processes import FAULTY, GATED, assert_gone, assert_tidy, custom, family

# gRPC cancels what arrives while it says goodbye to a connection; everything later does not get through.
NOT_ACCEPTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
CALLERS = 48


def echo_jobs(number: int) -> list[Job]:
    xs = np.random.default_rng(13).standard_normal((number, 2, 1), dtype=np.float32)
    return [job("echo", {"x": x}, {"y": x}) for x in xs]


async def stop_under_load(daemon: Daemon, jobs: Sequence[Job]) -> Load:
    """SIGTERM after a thousand answers; every caller goes on until it is turned away."""
    load = Load()
    async with Connections(daemon.grpc) as connections:
        driving = asyncio.create_task(
            drive(
                *(connections, itertools.cycle(jobs)),
                load=load,
                callers=CALLERS,
                until=lambda: len(load.failures) >= CALLERS,
            )
        )
        await eventually(lambda: load.answered >= 1000, "under load")
        daemon.signal(signal.SIGTERM)
        await driving
    return load


def stop(folder: Path, **options: Any) -> None:
    """Stop a daemon under load and look for what it left."""
    model = custom(folder, "echo", FAULTY)
    with running(
        *(model, "--frontends", "2", "--instances", "2"), folder=folder / "run", **options
    ) as daemon:
        pids = family(daemon)
        load = asyncio.run(stop_under_load(daemon, echo_jobs(500)))
        assert daemon.wait() == 0
        assert_gone(pids)
        assert not load.wrong
        assert set(load.codes()) <= NOT_ACCEPTED, load.failures[:5]
        assert load.answered + len(load.failures) == load.sent
    assert_tidy(daemon, folder / "run")


def test_a_stop_under_load_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    stop(tmp_path)


async def held_requests(
    daemon: Daemon, jobs: Sequence[Job], gate: Path, trouble: signal.Signals | None
) -> Load:
    """Requests that are all accepted, trouble for every child while the daemon drains, and then their answers."""
    load = Load()
    async with Connections(daemon.grpc) as connections:
        driving = asyncio.create_task(drive(connections, jobs, load=load, callers=len(jobs)))
        await eventually(lambda: daemon.metric("predictd_in_flight") == len(jobs), "accepted")
        if trouble is signal.SIGTERM:
            # As a service manager does that signals all processes of a service, in no order.
            for pid in [*daemon.children(), daemon.process.pid]:
                os.kill(pid, signal.SIGTERM)
        else:
            daemon.signal(signal.SIGTERM)
        await eventually(lambda: "draining" in daemon.output(), "draining")
        if trouble is signal.SIGKILL:
            for pid in daemon.pids("workers"):
                os.kill(pid, trouble)
        await asyncio.to_thread(gate.touch)
        await driving
    return load


@pytest.mark.parametrize("trouble", [None, signal.SIGTERM, signal.SIGKILL])
def test_a_drain_answers_what_was_accepted_whatever_happens_to_workers(
    tmp_path: Path, trouble: signal.Signals | None
) -> None:
    gate = tmp_path / "gate"
    model = custom(tmp_path, "held", GATED, run_gate=gate)
    xs = [np.array([[HOLD], [at]], np.float32) for at in range(200)]
    jobs = [job("held", {"x": x}, {"y": x}) for x in xs]
    with running(model, "--instances", "2", folder=tmp_path / "run") as daemon:
        pids = family(daemon)
        load = asyncio.run(held_requests(daemon, jobs, gate, trouble))
        assert daemon.wait() == 0
        assert_gone(pids)
        load.assert_all_right()
    assert_tidy(daemon, tmp_path / "run")
