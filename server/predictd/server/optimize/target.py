"""What a quantized model is made for. Each runtime wants its quantization in another form."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)
# Each multiplies bytes and adds up in 32 bits. What came before adds up in 16, where two large products overflow.
_BYTE_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"})


class Target(enum.StrEnum):
    """Where the result shall run."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


@dataclass(frozen=True, slots=True)
class Form:
    """How a target wants INT8.

    Attributes:
        signed_activations: S8 instead of U8.
        options: Of ONNX Runtime's quantizer (`extra_options`).
    """

    signed_activations: bool
    options: Mapping[str, Any]


# What ONNX Runtime's CPU kernels are written for, and what TensorRT's parser takes: it refuses U8, zero points other
# than 0, and biases that are quantized themselves.
FORMS: Mapping[Target, Form] = {
    Target.ONNXRUNTIME: Form(signed_activations=False, options={}),
    Target.TENSORRT: Form(
        signed_activations=True,
        options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    ),
}


def needs_reduced_range(target: Target, cpuinfo: str) -> bool:
    """Whether weights of 8 bits may overflow on this CPU, so that they get 7.

    Args:
        target: Only ONNX Runtime's kernels on an x86 without VNNI are concerned.
        cpuinfo: What `/proc/cpuinfo` says.
    """
    flags = _FLAGS.search(cpuinfo)
    return target is Target.ONNXRUNTIME and flags is not None and not _BYTE_PRODUCTS & set(flags[1].split())


def cpuinfo() -> str:
    """Of this machine."""
    return _CPUINFO.read_text(errors="replace")
