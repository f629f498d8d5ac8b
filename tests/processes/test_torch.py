"""PyTorch models through a real daemon: a Triton repository as it is, batches, threads where they belong, a swap."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.client.errors import InvalidRequestError
from predictd.engines.api import Array, DType, Engine, EngineOptions, TensorSpec
from tests.fixtures.daemon import START_SECONDS, Daemon, running
from tests.fixtures.torch_or_skip import need_torch

need_torch()
from predictd.engines.torch.engine import load  # noqa: E402 - it imports torch
from tests.fixtures import torch_models  # noqa: E402

CONFIG = """\
platform: "pytorch_libtorch"
max_batch_size: 16
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3, 32, 32 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 10 ] }
dynamic_batching { max_queue_delay_microseconds: 2000 }
"""
IMAGE, SCORES = (
    (TensorSpec(name, DType.FP32, shape),)
    for name, shape in (("INPUT__0", (-1, 3, 32, 32)), ("OUTPUT__0", (-1, 10)))
)
THREADS = min(2, len(os.sched_getaffinity(0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one model, as people write it for Triton."""
    folder = tmp_path_factory.mktemp("models") / "net"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    torch_models.script(folder / "1" / "model.pt", torch_models.convolutions())
    return folder


@pytest.fixture(scope="module")
def daemon(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(model.parent, "--threads", str(THREADS), folder=tmp_path_factory.mktemp("run")) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        yield client


def images(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((rows, 3, 32, 32), np.float32)


def direct(version: Path) -> Engine:
    return load(version / "model.pt", EngineOptions(inputs=IMAGE, outputs=SCORES))


def test_a_triton_repository_is_served_as_it_is(model: Path, client: Client) -> None:
    sent = images(3)
    (expected,) = direct(model / "1").run([sent])
    prediction = client.predict("net", {"INPUT__0": sent})
    np.testing.assert_allclose(prediction.outputs["OUTPUT__0"], expected, atol=1e-4)


def test_what_does_not_fit_is_refused_by_the_declared_signature(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="INPUT__0"):
        client.predict("net", {"INPUT__0": np.zeros((1, 4, 32, 32), np.float32)})


def test_under_load_requests_share_batches_and_threads_stay_where_they_belong(
    model: Path, daemon: Daemon, client: Client
) -> None:
    engine = direct(model / "1")
    sent = [images(1, seed) for seed in range(8)]
    expected = [engine.run([image])[0] for image in sent]

    def call(seed: int) -> list[Array]:
        return [client.predict("net", {"INPUT__0": sent[seed]}).outputs["OUTPUT__0"] for _ in range(25)]

    with ThreadPoolExecutor(len(sent)) as callers:
        calls = [callers.submit(call, seed) for seed in range(len(sent))]
        (pid,) = daemon.pids()
        while wait(calls, 0.02).not_done:
            assert_placed(pid)
            # The run loop, the control thread, and one pool each of OpenMP and of NumPy's BLAS.
            assert len(list(Path(f"/proc/{pid}/task").iterdir())) <= 2 + 2 * (THREADS - 1)
        for seed, done in enumerate(calls):
            for scores in done.result():
                np.testing.assert_allclose(scores, expected[seed], atol=1e-4)
    runs = daemon.metric("predictd_batch_rows_count", model="net")
    assert runs < daemon.metric("predictd_run_requests_total", model="net")


def test_a_new_version_is_loaded_beside_the_traffic_and_then_all_threads_sleep(
    model: Path, tmp_path: Path
) -> None:
    served = tmp_path / "models" / "net"
    for folder in (served, served.with_name("other")):
        shutil.copytree(model, folder)
    staged = tmp_path / "2"
    staged.mkdir()
    torch_models.script(staged / "model.pt", torch_models.convolutions(layers=2))
    sent = {"INPUT__0": images(2)}
    # In a shared pool, the worker that serves the old version loads the new one, in another thread.
    arguments = ("--threads", str(THREADS), "--pools", "shared")
    with (
        running(served.parent, *arguments, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        pids = daemon.pids()
        before = client.predict("net", sent)
        staged.rename(served / "2")
        daemon.wait_until(
            lambda: client.predict("net", sent).version == 2, START_SECONDS, "on the new version"
        )
        after = client.predict("net", sent)
        assert daemon.pids() == pids
        assert_placed(pids[0])
        # Those of the OpenMP pool that the loading thread got, too.
        daemon.wait_until(lambda: states(pids[0]) <= {"S"}, START_SECONDS, "at rest")
    assert before.version == 1
    for prediction, version in ((before, model / "1"), (after, served / "2")):
        (expected,) = direct(version).run([sent["INPUT__0"]])
        np.testing.assert_allclose(prediction.outputs["OUTPUT__0"], expected, atol=1e-4)


def assert_placed(pid: int) -> None:
    """Every thread of a worker may run wherever the worker may."""
    planned = os.sched_getaffinity(pid)
    for entry in Path(f"/proc/{pid}/task").iterdir():
        assert os.sched_getaffinity(int(entry.name)) == planned


def states(pid: int) -> set[str]:
    """What the threads of a process do: R for running, which spinning is, S for sleeping."""
    stats = (entry.joinpath("stat").read_text() for entry in Path(f"/proc/{pid}/task").iterdir())
    return {stat.rpartition(")")[2].split()[0] for stat in stats}
