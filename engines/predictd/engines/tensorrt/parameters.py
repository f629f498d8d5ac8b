"""The parameters of the engine, `EngineOptions.parameters`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from predictd.engines.api import ModelLoadError
from predictd.engines.tensorrt.bindings import FLAVOURS
from predictd.engines.tensorrt.build_options import BUILD_PARAMETERS

_SWITCH = {"true": True, "false": False}
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a plan is run.

    Attributes:
        bindings: Which TensorRT; None for the first that is installed.
        cuda_graphs: Record runs of shapes that come again.
        parts: Into how many parts a batch with much to copy is cut.
    """

    bindings: str | None = None
    cuda_graphs: bool = True
    parts: int = 2


_KNOWN = ("bindings", "cuda_graphs", "parts")


def read_parameters(given: Mapping[str, str]) -> Parameters:
    """Check what a configuration says.

    Raises:
        ModelLoadError: An unknown name, or a value that it cannot have; one line.
    """
    for name in given:
        if name not in _KNOWN and name not in BUILD_PARAMETERS:
            known = ", ".join((*_KNOWN, *sorted(BUILD_PARAMETERS.difference(_KNOWN))))
            raise ModelLoadError(f"unknown parameter {name!r} of engine tensorrt; known: {known}")
    bindings = given.get("bindings")
    if bindings is not None and bindings not in FLAVOURS:
        raise _wrong("bindings", FLAVOURS, bindings)
    graphs = given.get("cuda_graphs", "true")
    if graphs not in _SWITCH:
        raise _wrong("cuda_graphs", tuple(_SWITCH), graphs)
    parts = given.get("parts", "2")
    allowed = tuple(str(count) for count in range(1, _MOST_PARTS + 1))
    if parts not in allowed:
        raise _wrong("parts", allowed, parts)
    return Parameters(bindings, _SWITCH[graphs], int(parts))


def _wrong(name: str, allowed: tuple[str, ...], given: str) -> ModelLoadError:
    return ModelLoadError(f"parameter {name!r} must be one of {', '.join(allowed)}, not {given!r}")
