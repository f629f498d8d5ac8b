"""Runs of which the same holds in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import DType, Engine, EngineOptions
from tests.fixtures import models
from tests.unit.engines.shared import memory_bytes

EngineOf = Callable[[Path], Engine]


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine_of(request: pytest.FixtureRequest) -> EngineOf:
    module = pytest.importorskip(
        f"predictd.engines.{request.param}", reason=f"{request.param} is not installed"
    )

    def load(path: Path) -> Engine:
        engine: Engine = module.load(path, EngineOptions())
        return engine

    return load


def test_bf16_means_bfloat16(engine_of: EngineOf, tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "m.onnx",
        [models.node("Cast", "x", "y", to=models.ELEMENT_TYPES[DType.FP32])],
        [models.tensor("x", DType.BF16, ("batch",))],
        [models.tensor("y", DType.FP32, ("batch",))],
    )
    (y,) = engine_of(path).run([np.array([0x3F80, 0xC000], np.uint16)])
    np.testing.assert_array_equal(y, np.array([1, -2], np.float32), strict=True)


def test_returned_arrays_outlive_later_runs_and_the_engine(engine_of: EngineOf, tmp_path: Path) -> None:
    for dtype in (DType.FP32, DType.BF16):
        engine = engine_of(models.identity(tmp_path / "m.onnx", dtype, ("batch", 1000)))
        inputs = [np.full((50, 1000), row, dtype.numpy) for row in range(20)]
        results = [engine.run([x])[0] for x in inputs]
        engine.close()
        del engine
        for x, y in zip(inputs, results, strict=True):
            np.testing.assert_array_equal(x, y)


def test_large_inputs_are_not_copied(engine_of: EngineOf, tmp_path: Path) -> None:
    """The sum of 64 MiB takes no second 64 MiB."""
    engine = engine_of(models.dynamic_dims(tmp_path / "m.onnx"))
    x = np.ones((16, 1 << 20), np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    before = memory_bytes("VmHWM")
    (y,) = engine.run([x])
    assert (y == 1 << 20).all()
    assert memory_bytes("VmHWM") - before < x.nbytes // 2
