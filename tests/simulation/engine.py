"""The engine of a simulated world: an answer carries the request's identity and the lane that gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from predictd.engines.api import Array, DType, EngineError, InvalidInputError, Signature, TensorSpec
from tests.simulation.schedule import Kind

SIGNATURE = Signature(
    (TensorSpec("x", DType.INT64, (-1, -1)),), (TensorSpec("y", DType.INT64, (-1, 2)),), batches=True
)
REFUSAL = "refused by the engine"


class Watcher(Protocol):
    """What a run tells the world."""

    def run_begins(self, lane: int, numbers: Sequence[int]) -> None:
        """The engine has these requests, each once for each of its rows."""

    def compute(self) -> None:
        """Let the time of a run pass."""

    def crash(self) -> None:
        """The process dies of this run."""

    def hang(self) -> None:
        """This run never ends."""


class SimulatedEngine:
    """Rows of (number, kind, ...) in, rows of (number, lane) out."""

    name = "simulated"
    signature = SIGNATURE

    def __init__(self, lane: int, watcher: Watcher, on_close: Callable[[int], None]) -> None:
        self._lane = lane
        self._watcher = watcher
        self._on_close = on_close

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch, which others can disturb before and after its inputs are looked at."""
        (x,) = inputs
        assert x is not None
        self._watcher.run_begins(self._lane, [int(number) for number in dict.fromkeys(x[:, 0].tolist())])
        self._watcher.compute()
        kinds = set(x[:, 1].tolist())
        if Kind.POISON in kinds:
            self._watcher.crash()
        if Kind.HANG in kinds:
            self._watcher.hang()
        if Kind.BAD in kinds:
            raise (InvalidInputError if len(x) % 2 else EngineError)(REFUSAL)
        y = np.empty((len(x), 2), np.int64)
        y[:, 0] = x[:, 0]
        y[:, 1] = self._lane
        if out is not None and out[0] is not None:
            out[0][...] = y
            return [out[0]]
        return [y]

    def close(self) -> None:
        """The lane is removed."""
        self._on_close(self._lane)
