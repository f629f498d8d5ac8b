"""Two workers of a model with large weights, seen from outside: what memory the second one costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.engines.api import Array, EngineOptions
from predictd.engines.onnxruntime import load
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.processes import complaints

WIDTH = 1024
LAYERS = 26
WEIGHTS_BYTES = LAYERS * WIDTH * WIDTH * 4
# What the second worker may cost of what a worker costs that shares nothing.
SECOND_MAX = 0.4
X = np.linspace(-1, 1, WIDTH, dtype=np.float32).reshape(1, WIDTH)


def private_bytes(pid: int) -> int:
    """Memory that would not be used without this process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def maps_weights(pid: int) -> bool:
    return "weights.bin" in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = models.mlp(tmp_path_factory.mktemp("model") / "dense.onnx", WIDTH, LAYERS)
    assert path.stat().st_size > WEIGHTS_BYTES > 100e6
    yield path
    # pytest keeps the folders of its last runs.
    path.unlink()


@pytest.fixture(scope="module")
def expected(model: Path) -> Array:
    return load(model, EngineOptions()).run([X])[0]


def assert_answers(daemon: Daemon, expected: Array) -> None:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        for _ in range(8):
            np.testing.assert_array_equal(client.predict("dense", {"x": X}).outputs["y"], expected)


@contextmanager
def two_workers(model: Path, folder: Path, cache: Path, parameters: str = "") -> Iterator[Daemon]:
    settings = folder / "models" / "dense.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(parameters)
    (settings.parent / "dense.onnx").symlink_to(model)
    arguments = ("--instances", "2", "--threads", "1", "--frontends", "1", "--max-batch-size", "4")
    linked = ("--linked-dir", model.parent)
    with running(settings.parent, *arguments, *linked, "--cache-dir", cache, folder=folder) as daemon:
        yield daemon


def test_the_second_worker_costs_a_fraction(model: Path, expected: Array, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    private: dict[str, list[int]] = {}
    for name, parameters in (("apart", "parameters = {share_weights = false}"), ("shared", "")):
        with two_workers(model, tmp_path / name, cache, parameters) as daemon:
            workers = daemon.pids("workers")
            assert [maps_weights(pid) for pid in workers] == [name == "shared"] * 2
            assert_answers(daemon, expected)
            private[name] = sorted(map(private_bytes, workers))
            assert complaints(daemon) == []
            print(f"{name}: loaded in {daemon.metric('predictd_load_duration_seconds'):.2f} s")
    print({name: [f"{size / 1e6:.0f} MB" for size in sizes] for name, sizes in private.items()})
    assert private["apart"][0] > WEIGHTS_BYTES
    # Whichever was the first: the one that made the copy keeps nothing of its own either.
    assert private["shared"][1] <= SECOND_MAX * private["apart"][0]


def test_who_comes_later_maps_what_is_there(model: Path, expected: Array, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with two_workers(model, tmp_path / "first", cache) as daemon:
        (entry,) = (cache / "onnxruntime").iterdir()
        made = entry.stat().st_ino
        (gone, stays) = daemon.pids("workers")
        os.kill(gone, signal.SIGKILL)
        daemon.wait_until(
            lambda: len(daemon.pids("workers")) == 2 and gone not in daemon.pids("workers"), 30, "back"
        )
        (new,) = set(daemon.pids("workers")) - {stays}
        daemon.wait_until(lambda: maps_weights(new), 30, "mapped by the new worker")
        with two_workers(model, tmp_path / "second", cache) as other:
            assert all(map(maps_weights, other.pids("workers")))
            assert_answers(other, expected)
            assert complaints(other) == []
    assert [path.stat().st_ino for path in (cache / "onnxruntime").iterdir()] == [made]
