"""Plans that the fake TensorRT runs, and the ONNX models that the real one builds of the same descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

OPERATIONS: Mapping[str, Callable[..., list[Array]]] = {
    "echo": lambda x: [x.copy()],
    "double": lambda x: [x + x],
    "sum_and_difference": lambda a, b: [a + b, a - b],
    "repeat": lambda x, times: [
        np.tile(x, (int(times[0]), 1)),
        np.array([x.shape[0] * int(times[0]), *x.shape[1:]], np.int64),
    ],
    "nonzero": lambda x: [np.stack(np.nonzero(x)).astype(np.int64)],
}
NUMPY = {
    "FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT8": np.int8, "INT32": np.int32,
    "INT64": np.int64, "BOOL": np.bool_, "UINT8": np.uint8, "FP8": np.uint8,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An input or output, with TensorRT's name of its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "FLOAT"
    host: bool = False


@dataclass(frozen=True)
class PlanSpec:
    """A plan.

    Attributes:
        operation: One of `OPERATIONS`.
        profiles: For each the least, best and most shape of every input.
        fails: What TensorRT logs when it is run; empty when it runs.
        streamable_bytes: Weights that may stream.
    """

    operation: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    profiles: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...] = ()
    fails: str = ""
    streamable_bytes: int = 0
    flavour: str = "tensorrt"
    extra: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As a file."""
        return b"FAKE" + json.dumps(asdict(self)).encode()


def decode(data: bytes) -> PlanSpec:
    """A file as a plan. Raises ValueError for anything else."""
    if data[:4] != b"FAKE":
        raise ValueError("magic")
    fields = json.loads(data[4:])
    for side in ("inputs", "outputs"):
        fields[side] = tuple(
            Tensor(t["name"], tuple(t["shape"]), t["dtype"], t["host"]) for t in fields[side]
        )
    fields["profiles"] = tuple(
        tuple(tuple(tuple(shape) for shape in ranges) for ranges in profile) for profile in fields["profiles"]
    )
    return PlanSpec(**fields)
