"""Reading and compiling a model the way a daemon needs it: nothing implicit, every failure one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from predictd.engines.api import EngineOptions, ModelLoadError
from predictd.engines.openvino import messages
from predictd.engines.openvino.runtime import openvino
from predictd.engines.traits import COMPANIONS

if TYPE_CHECKING:
    from pathlib import Path

_frontend = openvino.frontend
# Those of the readers derive from Exception one by one.
OPENVINO_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    _frontend.GeneralFailure,
    _frontend.InitializationFailure,
    _frontend.NotImplementedFailure,
    _frontend.OpConversionFailure,
    _frontend.OpValidationFailure,
)

CPU = "CPU"
_PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "f16": openvino.Type.f16}
_PRECISION = "precision"
_PRECISION_HINT = "INFERENCE_PRECISION_HINT"
_HEAD_BYTES = 4096
_ROOT = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<net\s[^>]*\bversion=[\"'](\d+)", re.DOTALL
)
# Older ones need a reader that left OpenVINO long ago.
_IR_VERSIONS = (b"10", b"11")


def read_model(core: Any, path: Path) -> Any:
    """Read a model file.

    Raises:
        ModelLoadError: It is broken, or not all of it is there.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return _read_ir(core, path, head) if path.suffix == ".xml" else _read_onnx(path)
    except OSError as error:
        raise ModelLoadError(error.strerror or str(error)) from error
    except OPENVINO_ERRORS as error:
        raise ModelLoadError(messages.one_line(str(error))) from error


def compile_model(core: Any, model: Any, options: EngineOptions) -> Any:
    """Prepare a model for a device.

    Raises:
        ModelLoadError: The device, the options or an operator of the model cannot be had.
    """
    device = _device(core, options.device)
    precision = _precision(options)
    try:
        properties = _properties(device, options.threads, precision)
        if options.profile:
            properties["PERF_COUNT"] = True
        compiled = core.compile_model(model, device, properties)
        actual = compiled.get_property(_PRECISION_HINT)
    except OPENVINO_ERRORS as error:
        raise ModelLoadError(messages.one_line(str(error))) from error
    if actual != _PRECISIONS[precision]:
        raise ModelLoadError(
            f"parameter {_PRECISION!r}: this machine does not compute in {precision}; "
            f"OpenVINO would take {actual.get_type_name()}"
        )
    return compiled


def _read_ir(core: Any, path: Path, head: bytes) -> Any:
    # What is no model would be tried as one of TensorFlow, whose reader prints.
    root = _ROOT.match(head)
    if root is None:
        raise ModelLoadError("not an OpenVINO model")
    if root[1] not in _IR_VERSIONS:
        raise ModelLoadError(f"an OpenVINO model of version {int(root[1])}, not 10 or 11: convert it again")
    weights = path.with_suffix(COMPANIONS[path.suffix])
    try:
        return core.read_model(path)
    except OPENVINO_ERRORS as error:
        if not weights.exists():
            raise ModelLoadError(f"no {weights.name} beside it: an OpenVINO model is two files") from error
        raise


def _read_onnx(path: Path) -> Any:
    # Named, because what is no ONNX model would be tried as one of TensorFlow, whose reader prints.
    reader = _frontend.FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(str(path)))


def _device(core: Any, device: str) -> str:
    name = device.upper()
    # Asking for all of them wakes the drivers of GPUs.
    if name == CPU:
        return name
    there = core.available_devices
    if name not in there:
        names = ", ".join(repr(each.lower()) for each in there)
        raise ModelLoadError(f"OpenVINO has no device {device!r} here; there is {names}")
    return name


def _precision(options: EngineOptions) -> str:
    for name, value in options.parameters.items():
        if name != _PRECISION:
            raise ModelLoadError(f"unknown parameter {name!r} of engine openvino; known: {_PRECISION}")
        if value not in _PRECISIONS:
            raise ModelLoadError(f"parameter {name!r} must be one of {', '.join(_PRECISIONS)}, not {value!r}")
    return options.parameters.get(_PRECISION, "f32")


def _properties(device: str, threads: int, precision: str) -> dict[str, object]:
    if threads < 1:
        raise ModelLoadError(f"threads must be at least 1, not {threads}")
    properties: dict[str, object] = {"NUM_STREAMS": 1, _PRECISION_HINT: _PRECISIONS[precision]}
    if precision == "f32":
        # Else activations beside compressed weights are quantized on the way.
        properties["EXECUTION_MODE_HINT"] = "ACCURACY"
    if device == CPU:
        properties |= {
            "INFERENCE_NUM_THREADS": threads,
            # The launcher chose the CPUs, and counted which of them are siblings.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
        }
    return properties
