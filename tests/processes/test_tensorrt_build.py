"""TensorRT from outside: long loads are seen and let go on, plans are built, and one without a GPU fails alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from predictd.client import Client
from predictd.engines.api import EngineError
from predictd.engines.tensorrt.driver import probe
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, Daemon, running


def model_folder(folder: Path, config: str) -> Path:
    (folder / "1").mkdir(parents=True)
    models.affine(folder / "1" / "model.onnx")
    (folder / "model.toml").write_text(config)
    return folder


def no_gpu() -> bool:
    try:
        probe()
    except EngineError:
        return True
    return False


def state(daemon: Daemon, model: str) -> str:
    """What /readyz says of a model that is not ready."""
    lines = daemon.get("/readyz")[1].splitlines()
    return next((line for line in lines if re.search(rf"\b{model}\b", line)), "")


def test_long_loads_are_seen_and_another_engine_serves_meanwhile(tmp_path: Path) -> None:
    root, gate = tmp_path / "root", tmp_path / "gate"
    model_folder(root / "built", 'engine = "tensorrt"\nwhile_building = "onnxruntime"\n')
    with running(root, folder=tmp_path) as daemon, Client(daemon.grpc) as client:
        y = client.predict("built", {"x": np.ones((1, 4), np.float32)}).outputs["y"]
        assert y.tolist() == [[3.0] * 4]
        if no_gpu():
            told = "onnxruntime serves on, as tensorrt failed"
            daemon.wait_until(lambda: told in client.model("built").versions[0].reason, 30, "told why")
        assert client.model("built").versions[0].state == "READY"
        assert daemon.get("/readyz")[0] == 200

        slow = model_folder(
            tmp_path / "slow",
            f'engine = "tests.fixtures.reporting_engine:load"\n[parameters]\nuntil = "{gate}"\n',
        )
        slow.rename(root / "slow")

        def step() -> int:
            found = re.search(r"LOADING: step (\d+) of many", state(daemon, "slow"))
            return int(found[1]) if found else 0

        daemon.wait_until(lambda: step() > 1, 30, "going on")
        gate.touch()
        daemon.wait_until(lambda: not state(daemon, "slow"), 30, "loaded")
        assert client.predict("slow", {"x": np.ones((1, 1), np.float32)}).outputs["y"].tolist() == [[1.0]]


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU")
def test_a_plan_is_built_and_without_a_gpu_fails_alone(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed", exc_type=ImportError)
    model, plan = models.affine(tmp_path / "affine.onnx"), tmp_path / "built.plan"
    arguments = ("build", model, "-o", plan, "--compute-capability", "8.9", "--bindings", "tensorrt_rtx")
    built = subprocess.run(
        [*COMMAND, *map(str, arguments), "--cache-dir", str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert re.search(
        r"built\.plan: 0\.\d MiB, built by TensorRT-RTX .* for compute capability 8\.9", built.stdout
    )
    with running(model, plan, folder=tmp_path / "daemon") as daemon:
        assert "FAILED" in state(daemon, "built")
        assert "there is no NVIDIA driver here" in state(daemon, "built")
        with Client(daemon.grpc) as client:
            y = client.predict("affine", {"x": np.ones((1, 4), np.float32)}).outputs["y"]
            assert y.tolist() == [[3.0] * 4]
