"""Both clients against a real daemon, over TCP and over its unix socket, also while a front end dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    PredictdError,
    Prediction,
    Retries,
)
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running

PATIENT = Retries(attempts=10, budget=1000.0)
LARGE_ROWS = 40_000


def x(start: float, rows: int = 1) -> Any:
    return (np.arange(rows * 4, dtype=np.float32) + np.float32(start)).reshape(rows, 4)


def y(result: Prediction | PredictdError) -> Any:
    assert isinstance(result, Prediction), result
    return result.outputs["y"]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client")


@pytest.fixture(name="daemon", scope="module")
def _daemon(folder: Path) -> Iterator[Daemon]:
    repository = folder / "models"
    repository.mkdir()
    models.identity(repository / "rows.onnx")
    models.add_sub(repository / "add_sub.onnx")
    stale = folder / "predictd.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    options = ("--unix", str(stale), "--frontends", "2", "--max-request-rows", "100000")
    with running(repository, *options, folder=folder / "run") as daemon:
        yield daemon
    assert not stale.exists()


@pytest.fixture(name="target", params=["tcp", "unix"])
def _target(request: pytest.FixtureRequest, daemon: Daemon, folder: Path) -> str:
    ready: dict[str, str] = json.loads((folder / "run" / "ready.json").read_text())
    assert ready["unix"] == f"unix://{folder / 'predictd.sock'}"
    assert ready["grpc"] == daemon.grpc
    return ready["grpc" if request.param == "tcp" else "unix"]


def test_a_blocking_client_does_it_all(target: str) -> None:
    with Client(target) as client:
        np.testing.assert_array_equal(y(client.predict("rows", {"x": x(1)})), x(1))
        np.testing.assert_array_equal(y(client.predict("rows", x(2))), x(2))
        large = x(0, LARGE_ROWS)
        np.testing.assert_array_equal(y(client.predict("rows", large)), large)

        model = client.model("rows")
        assert "in   x FP32[-1, 4]" in repr(model)
        np.testing.assert_array_equal(y(client.predict(model, x(3))), x(3))
        with pytest.raises(InvalidRequestError) as local:
            client.predict(model, {"x": x(0)[:, :2]})
        with pytest.raises(InvalidRequestError) as remote:
            client.predict("rows", {"x": x(0)[:, :2]})
        assert local.value.message == remote.value.message

        for unary in (False, True):
            answers = client.predict_many("rows", map(x, range(200)), unary=unary, in_flight=50)
            for number, answer in enumerate(answers):
                np.testing.assert_array_equal(y(answer), x(number))
        answers = client.predict_many("rows", [large, x(1)[:, :2], x(2)], deadline=60)
        first, second, third = answers
        np.testing.assert_array_equal(y(first), large)
        assert isinstance(second, InvalidRequestError)
        np.testing.assert_array_equal(y(third), x(2))

        with pytest.raises(TypeError, match="model 'add_sub' has 2 inputs"):
            client.predict("add_sub", x(0))
        with pytest.raises(NotFoundError):
            client.predict("nothing", {"x": x(0)})
        with pytest.raises(DeadlineExceededError):
            client.predict("rows", {"x": x(0)}, deadline=-1)


def test_an_asyncio_client_does_it_all(target: str) -> None:
    async def main() -> None:
        np.testing.assert_array_equal(y(await client.predict("rows", x(1))), x(1))
        model = await client.model("rows")
        with pytest.raises(InvalidRequestError):
            await client.predict(model, {"x": x(0)[:, :2]})
        together = await asyncio.gather(*(client.predict(model, x(number)) for number in range(100)))
        for number, answer in enumerate(together):
            np.testing.assert_array_equal(y(answer), x(number))
        for unary in (False, True):
            answers = client.predict_many("rows", map(x, range(200)), unary=unary, in_flight=50)
            collected = [answer async for answer in answers]
            for number, answer_ in enumerate(collected):
                np.testing.assert_array_equal(y(answer_), x(number))
            assert len(collected) == 200
        await client.close()

    client = AsyncClient(target)
    asyncio.run(main())


def test_the_socket_is_for_owner_and_group_and_another_daemon_is_refused(
    daemon: Daemon, folder: Path
) -> None:
    path = folder / "predictd.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    second = Daemon(folder / "models", "--unix", path, folder=folder / "second")
    assert second.wait() == 2
    assert second.output() == f"predictd: unix socket {path} is already in use by another process\n"
    with Client(f"unix://{path}") as client:
        np.testing.assert_array_equal(y(client.predict("rows", x(1))), x(1))
    assert daemon.process.poll() is None


def test_the_death_of_a_front_end_is_no_error_to_a_pipeline(tmp_path: Path) -> None:
    model = models.identity(tmp_path / "rows.onnx")
    path = tmp_path / "predictd.sock"
    with running(model, "--unix", path, "--frontends", "2", folder=tmp_path / "run") as daemon:

        def inputs() -> Iterator[Any]:
            for number in range(300):
                if number == 100:
                    os.kill(daemon.pids("front ends")[0], signal.SIGKILL)
                yield x(number)

        for target, unary in ((daemon.grpc, False), (f"unix://{path}", True)):
            with Client(target, retries=PATIENT) as client:
                answers = client.predict_many("rows", inputs(), in_flight=20, unary=unary)
                for number, answer in enumerate(answers):
                    np.testing.assert_array_equal(y(answer), x(number))
            daemon.wait_until(lambda: len(daemon.pids("front ends")) == 2, 30, "whole again")


def test_a_client_works_on_after_a_fork(target: str) -> None:
    with Client(target) as client:
        client.predict("rows", x(0))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                many = [float(y(answer)[0, 0]) for answer in client.predict_many("rows", map(x, range(5)))]
                status = 0 if many == [0, 1, 2, 3, 4] and y(client.predict("rows", x(7)))[0, 0] == 7 else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        np.testing.assert_array_equal(y(client.predict("rows", x(1))), x(1))
