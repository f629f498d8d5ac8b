"""On what ONNX Runtime runs a model: its execution providers, by the device and the parameter `execution_provider`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from predictd.engines.api import EngineOptions, ModelLoadError

PARAMETER = "execution_provider"
CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
# By the parameter's value; each takes what the ones before it leave.
_ON_GPU: Mapping[str, tuple[str, ...]] = {"cuda": (_CUDA,), "tensorrt": (_TENSORRT, _CUDA)}

Provider = str | tuple[str, dict[str, str]]


def providers(options: EngineOptions) -> list[Provider]:
    """What to ask ONNX Runtime for, the first one first. The CPU does what no other can.

    Raises:
        ModelLoadError: The device is none, the parameter does not go with it, or ONNX Runtime was built without.
    """
    asked = options.parameters.get(PARAMETER)
    if asked is not None and asked not in _ON_GPU:
        raise ModelLoadError(f"parameter {PARAMETER!r} must be one of {', '.join(_ON_GPU)}, not {asked!r}")
    if options.device == "cpu":
        if asked is not None:
            raise ModelLoadError(
                f"parameter {PARAMETER!r} is {asked!r}, which needs a GPU, such as the device '0'"
            )
        return [CPU]
    number = "0" if options.device == "cuda" else options.device.removeprefix("cuda:")
    if not (number.isdecimal() and number.isascii()):
        raise ModelLoadError(
            f"engine onnxruntime runs on the device 'cpu' or on a GPU, such as '0', not on {options.device!r}"
        )
    names = _ON_GPU[asked or "cuda"]
    missing = [name for name in names if name not in onnxruntime.get_available_providers()]
    if missing:
        raise ModelLoadError(
            f"the device {options.device!r} needs {missing[0]}, without which this ONNX Runtime was built: install "
            "onnxruntime-gpu in place of onnxruntime"
        )
    return [*((name, {"device_id": number}) for name in names), CPU]


def check_loaded(session: Any, asked: Sequence[Provider]) -> None:
    """Demand what was asked for: ONNX Runtime leaves out a provider that it cannot load, and says so to nobody.

    Raises:
        ModelLoadError: One is missing.
    """
    wanted = [provider if isinstance(provider, str) else provider[0] for provider in asked]
    got = session.get_providers()
    missing = [name for name in wanted if name != CPU and name not in got]
    if missing:
        raise ModelLoadError(
            f"ONNX Runtime could not load its {missing[0]}: libraries of CUDA, cuDNN or TensorRT that it was built "
            "for are missing, or there is no such GPU"
        )
    if got != wanted:
        raise ModelLoadError(f"ONNX Runtime chose the providers {got}, not {wanted}")
