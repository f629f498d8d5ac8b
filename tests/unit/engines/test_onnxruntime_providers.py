"""Which execution providers a device and its parameter ask for, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from predictd.engines.api import EngineOptions, ModelLoadError
from predictd.engines.onnxruntime import load
from predictd.engines.onnxruntime.providers import Provider, check_loaded, providers
from tests.fixtures import models

GPU_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "parameters", "asked"),
    [
        ("cpu", {}, ["CPUExecutionProvider"]),
        ("1", {}, [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]),
        (
            "cuda",
            {"execution_provider": "cuda"},
            [("CUDAExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"],
        ),
        (
            "cuda:2",
            {"execution_provider": "tensorrt"},
            [
                ("TensorrtExecutionProvider", {"device_id": "2"}),
                ("CUDAExecutionProvider", {"device_id": "2"}),
                "CPUExecutionProvider",
            ],
        ),
    ],
)
def test_what_is_asked_for(
    device: str, parameters: dict[str, str], asked: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_BUILD)
    assert providers(EngineOptions(device=device, parameters=parameters)) == asked


@pytest.mark.parametrize(
    ("device", "parameters", "reason"),
    [
        ("gpu", {}, "engine onnxruntime runs on the device 'cpu' or on a GPU, such as '0', not on 'gpu'"),
        ("0", {}, "the device '0' needs CUDAExecutionProvider, without which this ONNX Runtime was built"),
        (
            "0",
            {"execution_provider": "tensorrt"},
            "the device '0' needs TensorrtExecutionProvider, without which",
        ),
        (
            "0",
            {"execution_provider": "rocm"},
            "parameter 'execution_provider' must be one of cuda, tensorrt, not",
        ),
        (
            "cpu",
            {"execution_provider": "cuda"},
            "parameter 'execution_provider' is 'cuda', which needs a GPU",
        ),
    ],
)
def test_what_is_refused(device: str, parameters: dict[str, str], reason: str, tmp_path: Path) -> None:
    path = models.affine(tmp_path / "m.onnx")
    with pytest.raises(ModelLoadError) as caught:
        load(path, EngineOptions(device=device, parameters=parameters))
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_provider_whose_libraries_are_missing_is_not_done_without() -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    check_loaded(session, ["CPUExecutionProvider"])
    with pytest.raises(ModelLoadError, match="could not load its CUDAExecutionProvider: libraries of CUDA"):
        check_loaded(session, [("CUDAExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"])
    with pytest.raises(ModelLoadError, match="chose the providers"):
        check_loaded(session, [])
