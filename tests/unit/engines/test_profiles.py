"""Which layers take the time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import EngineOptions, ProfiledEngine, TimedEngine
from predictd.engines.onnxruntime.trace import sum_layers
from predictd.engines.registry import resolve
from tests.fixtures import models

RUN = {"cat": "Session", "name": "model_run", "dur": 9}


def event(name: str, operator: str, index: int, microseconds: int) -> dict[str, Any]:
    args = {"op_name": operator, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}


def test_runs_that_do_not_count_are_left_out_and_nodes_need_no_names() -> None:
    loading = {"cat": "Session", "name": "session_initialization", "dur": 5, "args": {}}
    first = [event("a", "MatMul", 0, 900), event("", "Relu", 1, 900), event("", "Relu", 2, 900), RUN]
    later = [event("a", "MatMul", 0, 30), event("", "Relu", 1, 2), event("", "Relu", 2, 1), RUN]
    layers = sum_layers([loading, *first, *later, *later], skipped_runs=1)
    seconds = [pytest.approx(6e-5), pytest.approx(4e-6), pytest.approx(2e-6)]
    assert [(each.name, each.kind, each.runs) for each in layers] == [
        ("a", "MatMul", 2),
        ("", "Relu", 2),
        ("", "Relu", 2),
    ]
    assert [each.seconds for each in layers] == seconds


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_tells_the_layers_of_the_runs_that_count(name: str, tmp_path: Path) -> None:
    if name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    load = resolve(name)
    path = models.mlp(tmp_path / "m.onnx", width=256, layers=3)
    x = np.ones((4, 256), np.float32)
    plain, profiled = load(path, EngineOptions()), load(path, EngineOptions(profile=True))
    assert isinstance(profiled, ProfiledEngine)
    assert not isinstance(plain, ProfiledEngine | TimedEngine)
    profiled.run([x])
    profiled.start_profile()
    for _ in range(3):
        np.testing.assert_allclose(profiled.run([x])[0], plain.run([x])[0], rtol=1e-5)
    layers = profiled.profile()
    assert layers
    assert {layer.runs for layer in layers} == {3}
    assert sum(layer.seconds for layer in layers) > 0
    profiled.close()


def test_the_trace_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    module = importlib.import_module("predictd.engines.onnxruntime")
    engine = module.load(models.affine(tmp_path / "m.onnx"), EngineOptions(profile=True))
    engine.run([np.ones((1, 4), np.float32)])
    assert engine.profile()
    assert list((tmp_path / "scratch").rglob("*.json"))
    engine.close()
    assert list((tmp_path / "scratch").iterdir()) == []
