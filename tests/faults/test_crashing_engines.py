"""Engines that crash: what they crash on fails, and nothing else does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, InternalError, UnavailableError
from predictd.engines.api import Array
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import DEVICE_LOST, ENGINE_ERROR, KILL, RUNTIME_ERROR, SEGFAULT
from tests.fixtures.killing import serving
from tests.fixtures.load import Connections, Load, drive, job
from tests.fixtures.processes import FAULTY, custom

REQUESTS = 300


def echo(value: float, rows: int = 1) -> Array:
    return np.full((rows, 1), value, np.float32)


async def drive_all(daemon: Daemon, values: list[float]) -> Load:
    """All at once."""
    load = Load()
    jobs = [job("echo", {"x": echo(value)}, {"y": echo(value)}) for value in values]
    async with Connections(daemon.grpc) as connections:
        await drive(connections, jobs, load=load, callers=len(jobs))
    return load


@pytest.mark.parametrize("crash", [KILL, SEGFAULT, DEVICE_LOST])
def test_a_request_that_crashes_the_engine_fails_alone(tmp_path: Path, crash: float) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    values = [float(at) for at in range(REQUESTS)]
    values.insert(REQUESTS // 2, crash)
    with running(model, folder=tmp_path / "run") as daemon:
        load = asyncio.run(drive_all(daemon, values))
        assert not load.wrong
        assert load.answered == REQUESTS
        (failure,) = load.failures
        assert (failure.number, failure.code) == (REQUESTS // 2, grpc.StatusCode.INTERNAL)
        assert "crashes the engine of model 'echo'" in failure.details
        daemon.wait_metric("predictd_poison_total", 1, model="echo")
        daemon.wait_metric("predictd_worker_restarts_total", 2)
        daemon.wait_until(lambda: serving(daemon, "echo") == 1, 30, "serving again")
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("echo", {"x": echo(5.0)}).outputs["y"] == echo(5.0)
            assert client.model("echo").versions[0].state == "READY"


@pytest.mark.parametrize("failure", [ENGINE_ERROR, RUNTIME_ERROR])
def test_a_request_that_the_engine_refuses_fails_alone_and_nobody_dies(
    tmp_path: Path, failure: float
) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    values = [float(at) for at in range(REQUESTS)]
    values.insert(REQUESTS // 2, failure)
    with running(model, folder=tmp_path / "run") as daemon:
        load = asyncio.run(drive_all(daemon, values))
        assert not load.wrong
        assert load.answered == REQUESTS
        assert [f.number for f in load.failures] == [REQUESTS // 2]
        assert load.failures[0].code == grpc.StatusCode.INTERNAL
        assert daemon.metric("predictd_worker_restarts_total") == 0


def test_a_model_that_crashes_whenever_it_is_loaded_is_given_up_alone(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    models.affine(repository / "good.onnx")
    custom(repository, "bad", FAULTY, crash_on_load="true")
    with (
        running(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        bad = client.model("bad").versions[0]
        assert bad.state == "FAILED"
        assert "died 5 times in a row: killed by SIGKILL" in bad.reason
        with pytest.raises(UnavailableError, match="bad"):
            client.predict("bad", {"x": echo(1.0)})
        x = np.ones((2, 4), np.float32)
        assert (client.predict("good", {"x": x}).outputs["y"] == 3).all()
        daemon.wait_said("model bad version 1 failed")
        assert daemon.metric("predictd_lane_state", model="bad", state="FAILED") == 1
        assert daemon.metric("predictd_lane_state", model="good", state="READY") == 1
        assert "bad" in daemon.get("/readyz")[1]


def test_a_few_poisonous_requests_in_a_row_do_not_end_a_quiet_model(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with running(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, retries=NO_RETRIES) as client:
        for _ in range(3):
            with pytest.raises(InternalError):
                client.predict("echo", {"x": echo(KILL)})
        assert client.predict("echo", {"x": echo(1.0)}).outputs["y"] == 1.0
        daemon.wait_metric("predictd_poison_total", 3, model="echo")


@pytest.mark.soak
def test_a_model_that_only_ever_crashes_is_given_up_and_its_memory_given_back(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    models.affine(repository / "good.onnx")
    custom(repository, "bad", FAULTY)
    with (
        running(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        x = np.ones((2, 4), np.float32)
        client.predict("good", {"x": x})
        good_bytes = daemon.metric("predictd_arena_bytes", role="frontend")
        for _ in range(20):
            try:
                client.predict("bad", {"x": echo(KILL)})
            except InternalError:
                continue
            except UnavailableError:
                break
        else:
            pytest.fail("the model is still served")
        assert daemon.metric("predictd_lane_state", model="bad", state="FAILED") == 1
        daemon.wait_metric("predictd_arena_bytes", good_bytes, role="frontend")
        assert (client.predict("good", {"x": x}).outputs["y"] == 3).all()
        assert "Traceback" not in daemon.output()
