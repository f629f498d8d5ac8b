"""What a plan is built for: precision, shapes, GPUs. Pure, and without TensorRT."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from predictd.engines.api import ModelLoadError
from predictd.engines.tensorrt.bindings import FLAVOURS
from predictd.engines.tensorrt.profiles import ShapeWishes, parse_shapes


class BuildError(ModelLoadError):
    """A plan cannot be built. The message is one line."""


class Precision(enum.StrEnum):
    """What the layers of a model may compute in; whatever does not profit stays as it is."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class HardwareCompatibility(enum.StrEnum):
    """Which other GPUs shall be able to run a plan, at some cost of speed."""

    NONE = "none"
    AMPERE_PLUS = "ampere_plus"
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """All that a plan depends on besides the model, the library and the GPU.

    Attributes:
        precision: What layers may compute in.
        wishes: Shapes that somebody named; the others are derived.
        batch_sizes: Ascending. Each gets a profile of its own, which is best at it and takes what is smaller, down to
            the size before.
        workspace_bytes: Memory for the temporary results of a layer at most; None for what the GPU has.
        version_compatible: Later versions of TensorRT run it, too.
        hardware_compatibility: Which other GPUs run it, too.
        sparse: Layers whose weights are sparse 2:4 may use it.
        compute_capabilities: The GPUs that it is for, such as "8.9"; only TensorRT-RTX can be told, and builds for all
            when it is not.
        flavour: One of `bindings.FLAVOURS`; None for the first that is installed.
    """

    precision: Precision = Precision.FP32
    wishes: ShapeWishes = field(default_factory=ShapeWishes)
    batch_sizes: tuple[int, ...] = (1,)
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    sparse: bool = False
    compute_capabilities: tuple[str, ...] = ()
    flavour: str | None = None

    def to_json(self) -> str:
        """One line, the same for equal options."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> BuildOptions:
        """What `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        shapes = {
            kind: tuple((name, tuple(shape)) for name, shape in content["wishes"][kind])
            for kind in ("minimum", "optimum", "maximum")
        }
        return BuildOptions(
            **content
            | {
                "precision": Precision(content["precision"]),
                "hardware_compatibility": HardwareCompatibility(content["hardware_compatibility"]),
                "wishes": ShapeWishes(**shapes),
                "batch_sizes": tuple(content["batch_sizes"]),
                "compute_capabilities": tuple(content["compute_capabilities"]),
            }
        )


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("a number of bytes, at least 1")
    return int(text)


def _one_of(kind: type[enum.StrEnum], text: str) -> enum.StrEnum:
    if text not in set(kind):
        raise ValueError(f"one of {', '.join(kind)}")
    return kind(text)


def _flavour(text: str) -> str:
    if text not in FLAVOURS:
        raise ValueError(f"one of {', '.join(FLAVOURS)}")
    return text


# As keys of `[parameters]` of a model.toml: how each is read, and the attribute that it sets.
_READERS: Mapping[str, tuple[str, Any]] = {
    "precision": ("precision", lambda text: _one_of(Precision, text)),
    "workspace_bytes": ("workspace_bytes", _bytes),
    "version_compatible": ("version_compatible", _boolean),
    "hardware_compatibility": (
        "hardware_compatibility",
        lambda text: _one_of(HardwareCompatibility, text),
    ),
    "sparse": ("sparse", _boolean),
    "bindings": ("flavour", _flavour),
}
_SHAPES = {"min_shapes": "minimum", "opt_shapes": "optimum", "max_shapes": "maximum"}
BUILD_PARAMETERS = frozenset({*_READERS, *_SHAPES})
"""The parameters of an engine that say how its plan is built."""


def batch_sizes(max_batch_size: int, preferred: Iterable[int]) -> tuple[int, ...]:
    """The batch sizes to build for: those that a model prefers, and the most that it may have."""
    return tuple(sorted({*preferred, max_batch_size}))


def options_from_parameters(parameters: Mapping[str, str], batch_sizes: tuple[int, ...]) -> BuildOptions:
    """The options of a plan that is built while a model is loaded. Other parameters are left to whoever knows them.

    Raises:
        BuildError: One has a value that it cannot have.
    """
    said: dict[str, Any] = {"batch_sizes": batch_sizes}
    shapes: dict[str, Any] = {}
    for name, text in parameters.items():
        try:
            if name in _READERS:
                attribute, read = _READERS[name]
                said[attribute] = read(text)
            elif name in _SHAPES:
                shapes[_SHAPES[name]] = parse_shapes([text])
        except ValueError as error:
            raise BuildError(f"parameter {name!r}: {text!r} is not what it takes, {error}") from error
    return BuildOptions(wishes=ShapeWishes(**shapes), **said)
