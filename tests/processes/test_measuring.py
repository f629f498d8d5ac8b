"""`predictd bench --engine-only` and `predictd compare`, with engines in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import DType
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, REPOSITORY
from tests.fixtures.faulty_engine import KILL

SHORT = ("--for", "100ms", "--threads", "1")


def predictd(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    # Where the engine that dies is.
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=100, env=environment)


def complaint(*arguments: object) -> str:
    """What goes wrong, without what was going on before."""
    done = predictd(*arguments)
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


def test_a_bench_of_an_engine(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx", layers=2)
    done = predictd(
        *("bench", "--engine-only", path, "--instances", 2, "--threads", 1, "--batch-sizes", "4,2"),
        *("--iterations", 30, "--warm-up", "10ms", "--profile", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["engine"], found["threads"], found["size_bytes"]) == ("onnxruntime", 1, path.stat().st_size)
    assert [process["environment"]["ORT_DISABLE_TELEMETRY"] for process in found["processes"]] == ["1", "1"]
    planned = json.loads(predictd("plan", path, "--instances", 2, "--threads", 1, "--json").stdout)
    workers = planned["pools"]["m"]["workers"]
    assert [process["environment"] for process in found["processes"]] == [
        worker["environment"] for worker in workers
    ]
    assert [(each["rows"], each["runs"], each["shapes"]) for each in found["batches"]] == [
        (2, 60, {"x": [2, 64]}),
        (4, 60, {"x": [4, 64]}),
    ]
    for each in found["batches"]:
        assert 0 < each["latency"]["min_seconds"] <= each["latency"]["p999_seconds"]
        assert each["rows_per_second"] > 0
        # However ONNX Runtime calls what it made of them.
        assert sum("Gemm" in layer["kind"] for layer in each["layers"]) == 2
        assert all(layer["runs"] and layer["seconds_per_run"] >= 0 for layer in each["layers"])


def test_a_bench_of_another_engine_on_given_inputs(tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    path = models.dynamic_dims(tmp_path / "m.onnx")
    assert "dimensions that vary" in complaint("bench", "--engine-only", path)
    np.save(tmp_path / "x.npy", np.ones((3, 5), np.float32))
    done = predictd(
        *("bench", "--engine-only", path, "--engine", "openvino", "--inputs", tmp_path / "x.npy", *SHORT)
    )
    assert done.returncode == 0, done.stderr
    assert "openvino, 1 process with 1 thread" in done.stdout


def test_models_are_compared(tmp_path: Path) -> None:
    original = models.affine(tmp_path / "a.onnx", scale=2.0)
    nearly = models.affine(tmp_path / "b.onnx", scale=2.002)
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(3):
        rows = np.random.default_rng(number).normal(size=(number + 1, 4)).astype(np.float32)
        np.savez(folder / f"{number}.npz", x=rows)
    arguments = ("compare", original, nearly, "--inputs", folder, "--batch-sizes", "1,4", *SHORT)
    done = predictd(*arguments, "--report", tmp_path / "report", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    (output,) = found["outputs"]
    assert (output["name"], output["broken_values"], output["compared_values"]) == ("y", 0, 24)
    assert 0.999 < output["worst_cosine"] <= 1.0
    assert 0 < output["max_abs_error"] < 0.02
    assert [each["batch_size"] for each in found["speedups"]] == [1, 4]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        *("comparison.json", "comparison.md", "comparison.svg")
    ]
    done = predictd(*arguments, "--max-error", "1e-6")
    assert done.returncode == 1
    assert "not good: output 'y': the largest error is" in done.stdout


def test_made_up_inputs_and_text(tmp_path: Path) -> None:
    path = models.string_identity(tmp_path / "m.onnx")
    done = predictd("compare", path, path, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "random numbers say little about accuracy" in done.stdout
    half = models.identity(tmp_path / "half.onnx", DType.FP16)
    done = predictd("compare", models.identity(tmp_path / "whole.onnx"), half, *SHORT)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    path = models.affine(tmp_path / "m.onnx")
    fixed = models.fixed_batch(tmp_path / "fixed.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    (tmp_path / "empty").mkdir()
    assert complaint("bench", "--engine-only") == "predictd bench: say what to measure: MODEL"
    assert str(broken) in complaint("bench", "--engine-only", broken)
    assert complaint("bench", "--engine-only", fixed, "--batch-sizes", 2) == (
        f"predictd: {fixed}: the model does not batch: leave --batch-sizes out"
    )
    assert complaint("compare", path, path, "--inputs", tmp_path / "empty") == (
        f"predictd: {tmp_path}/empty: no .npz or .npy file in it"
    )
    other = models.add_sub(tmp_path / "other.onnx")
    assert "the original has the inputs 'x', the candidate 'INPUT0'" in complaint("compare", path, other)
    np.savez(tmp_path / "deadly.npz", x=np.full((1, 1), KILL, np.float32))
    deadly = ("--engine", "tests.fixtures.faulty_engine:load", "--inputs", tmp_path / "deadly.npz")
    assert complaint("bench", "--engine-only", path, *deadly) == (
        f"predictd: {path}: the engine's process was killed by SIGKILL"
    )
