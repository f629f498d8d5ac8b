"""Too much at once: refused at once and in words, and what was accepted is answered."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PredictdError,
)
from predictd.engines.api import Array
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, Daemon, running
from tests.fixtures.faulty_engine import BLOCK, ENGINE_ERROR
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive, job, send
from tests.fixtures.processes import FAULTY, GATED, custom

MIB = 1024 * 1024


def sums_are_right(daemon: Daemon, width: int, rows: int = 1) -> None:
    x = np.ones((rows, width), np.float32)
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        np.testing.assert_allclose(client.predict("sums", {"x": x}).outputs["y"], np.full(rows, width))


async def flood(daemon: Daemon, jobs: list[Job]) -> Load:
    load = Load()
    async with Connections(daemon.grpc) as connections:
        await drive(connections, jobs, load=load, callers=len(jobs))
    return load


def test_a_request_beyond_the_memory_limit_is_refused_and_small_ones_are_answered(tmp_path: Path) -> None:
    model = models.dynamic_dims(tmp_path / "sums.onnx")
    with running(model, "--arena-limit", "4MiB", folder=tmp_path / "run") as daemon:
        with (
            Client(daemon.grpc, retries=NO_RETRIES) as client,
            pytest.raises(OverloadedError, match="arena_limit"),
        ):
            client.predict("sums", {"x": np.ones((1, 2 * MIB), np.float32)})
        for width in (1, 1000, 300_000, 10):
            sums_are_right(daemon, width)
        daemon.wait_metric("predictd_shed_total", 1, reason="memory")
        assert daemon.metric("predictd_worker_restarts_total") == 0


def test_a_flood_of_large_requests_leaves_memory_for_small_ones(tmp_path: Path) -> None:
    """Every size has a class of blocks of its own, and memory once given to a class stays there."""
    direct = Direct(models.dynamic_dims(tmp_path / "sums.onnx"))
    random = np.random.default_rng(11)
    widths = [2 ** (at / 2) for at in range(20, 37)]
    jobs = [each for w in widths for each in dense_jobs("sums", direct, random, 6, int(w), (1,))]
    random.shuffle(jobs)
    with running(tmp_path, "--arena-limit", "4MiB", folder=tmp_path / "run") as daemon:
        load = asyncio.run(flood(daemon, jobs))
        assert not load.wrong
        assert load.answered
        assert set(load.codes()) <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("arena_limit" in failure.details for failure in load.failures), load.failures[:3]
        # None is larger than the smallest of the flood, so some free block is large enough whoever got the memory.
        for rows, width in ((1, 1), (2, 3), (31, 33), (1, 1000), (100, 10)):
            sums_are_right(daemon, width, rows)
        assert daemon.metric("predictd_arena_bytes") <= 4 * MIB
        assert daemon.metric("predictd_worker_restarts_total") == 0


def failing(path: Path, kind: str) -> tuple[list[str | Path], str, Array, type[PredictdError]]:
    """A daemon's arguments, and a model and an input of 4 MiB that fails there: how it does."""
    model = custom(path, "echo", FAULTY)
    arguments: list[str | Path] = [model, "--max-request-rows", str(2 * MIB)]
    x: Array = np.zeros((MIB, 1), np.float32)
    match kind:
        case "refused for want of memory":
            return [*arguments, "--arena-limit", "3MiB"], "echo", x, OverloadedError
        case "failed by the engine":
            return arguments, "echo", np.full_like(x, ENGINE_ERROR), InternalError
        case "of the wrong shape":
            return arguments, "echo", x.reshape(-1, 2), InvalidRequestError
        case "for an unknown model":
            return arguments, "nobody", x, NotFoundError
        case "given up by the client":
            return arguments, "echo", np.full_like(x, BLOCK), DeadlineExceededError
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "refused for want of memory",
        "failed by the engine",
        "of the wrong shape",
        "for an unknown model",
        "given up by the client",
    ],
)
def test_a_request_that_fails_is_forgotten_at_once(tmp_path: Path, kind: str) -> None:
    """Overload with large requests would else end with the front end's death by the kernel."""
    arguments, model, x, failure = failing(tmp_path, kind)
    requests = 50
    with (
        running(*arguments, "--frontends", "1", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):

        def fail() -> None:
            with pytest.raises(failure):
                client.predict(model, {"x": x}, deadline=0.1 if failure is DeadlineExceededError else 60)

        for _ in range(5):
            fail()
        before = daemon.metric("predictd_process_resident_bytes", role="frontend")
        for _ in range(requests):
            fail()
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 60, "idle")
        grown = daemon.metric("predictd_process_resident_bytes", role="frontend") - before
        arena = daemon.metric("predictd_arena_bytes", role="frontend")
        assert grown - arena < requests * x.nbytes / 4


async def overload(daemon: Daemon, jobs: list[Job], gate: Path) -> tuple[Load, int]:
    """All at once while the worker is held up, and then let it go: the outcome, and how many were refused before."""
    load = Load()
    async with Connections(daemon.grpc) as connections:
        driving = asyncio.create_task(drive(connections, jobs, load=load, callers=len(jobs)))
        accepted = 0
        while load.sent != len(jobs) or accepted + len(load.failures) != len(jobs):
            assert not driving.done(), load.codes()
            await asyncio.sleep(0.05)
            accepted = int(await asyncio.to_thread(daemon.metric, "predictd_in_flight"))
        assert not load.answered
        refused = len(load.failures)
        await asyncio.to_thread(gate.touch)
        await driving
    return load, refused


@pytest.mark.parametrize(
    ("queue", "requests", "message"),
    [(1024, 1800, "the queue of model 'echo' is full"), (4096, 2500, "requests are in flight")],
)
def test_overload_is_refused_at_once_and_the_accepted_are_answered(
    tmp_path: Path, queue: int, requests: int, message: str
) -> None:
    gate = tmp_path / "gate"
    model = custom(tmp_path, "echo", GATED, run_gate=gate)
    xs = [np.array([[HOLD], [at]], np.float32) for at in range(requests)]
    jobs = [job("echo", {"x": x}, {"y": x}) for x in xs]
    arguments = (model, "--frontends", "1", "--instances", "1", "--max-queue-size", str(queue))
    with running(*arguments, folder=tmp_path / "run") as daemon:
        load, refused = asyncio.run(overload(daemon, jobs, gate))
        assert refused
        assert not load.wrong
        assert len(load.failures) == refused, "an accepted request was refused later"
        assert load.answered == requests - refused
        assert set(load.codes()) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all(message in failure.details for failure in load.failures), load.failures[:3]
        asyncio.run(flood(daemon, jobs[:500])).assert_all_right()


def test_a_model_that_is_held_up_does_not_keep_others_waiting(tmp_path: Path) -> None:
    """Each model has a queue of its own."""
    gate = tmp_path / "gate"
    repository = tmp_path / "models"
    for name in ("slow", "quick"):
        custom(repository, name, GATED, run_gate=gate)
    held = np.full((1, 1), HOLD, np.float32)
    with (
        running(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(client.predict, "slow", {"x": held})
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 1, 10, "at work")
        for value in range(50):
            x = np.full((1, 1), HOLD + 1 + value, np.float32)
            assert client.predict("quick", {"x": x}).outputs["y"] == x
        assert not slow.done()
        gate.touch()
        assert slow.result().outputs["y"] == HOLD


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of our own whose memory can be limited; skipped by name where there can be none."""
    roots = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    root = next((r for r in roots if (r / "cgroup.procs").exists()), None)
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("no control group can be made here")
    group = root / f"predictd-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        if not any((group / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
            pytest.skip("the control groups here do not have the memory controller")
        yield group
    finally:
        deadline = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        group.rmdir()


async def fill_memory(daemon: Daemon, request: bytes, gate: Path) -> tuple[int, list[grpc.aio.AioRpcError]]:
    """Large requests, one after the other, none of which is answered before all are accepted or refused."""
    async with Connections(daemon.grpc, 1) as connections:
        calls: list[asyncio.Task[object]] = []
        refused: list[asyncio.Task[object]] = []
        while len(refused) < 10:
            calls.append(asyncio.create_task(send(connections.calls[0], request)))
            settled = False
            while not settled:
                await asyncio.sleep(0.02)
                refused = [call for call in calls if call.done()]
                accepted = await asyncio.to_thread(daemon.metric, "predictd_in_flight")
                settled = accepted + len(refused) == len(calls)
        await asyncio.to_thread(gate.touch)
        results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    return len(results) - len(errors), errors


@pytest.mark.soak
def test_a_small_memory_limit_refuses_and_kills_nobody(tmp_path: Path, memory_group: Path) -> None:
    """The kernel would kill who takes memory beyond the limit; the daemon asks before it takes any."""
    gate = tmp_path / "gate"
    model = custom(tmp_path, "echo", GATED, run_gate=gate)
    limit = next(n for n in ("memory.max", "memory.limit_in_bytes") if (memory_group / n).exists())
    (memory_group / limit).write_text(str(500 * MIB))
    enter = ("sh", "-c", f'echo $$ > {memory_group}/cgroup.procs; exec "$@"', "sh", *COMMAND)
    arguments = (model, "--arena-limit", "2GiB", "--max-request-rows", str(MIB), "--frontends", "1")
    with running(*arguments, folder=tmp_path / "run", command=enter) as daemon:
        x = np.full((MIB, 1), HOLD, np.float32)
        answered, errors = asyncio.run(fill_memory(daemon, job("echo", {"x": x}, {}).request, gate))
        assert answered > 3, errors
        assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("memory limit" in (error.details() or "") for error in errors)
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            small = np.full((5, 1), 7, np.float32)
            assert (client.predict("echo", {"x": small}).outputs["y"] == 7).all()
        assert daemon.metric("predictd_worker_restarts_total") == 0
        assert "died" not in daemon.output()
