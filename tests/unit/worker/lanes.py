"""Lanes whose engines compute with a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.server.config.lane import LaneConfig
from predictd.server.worker.runner import LoadedLane

Array = npt.NDArray[Any]
Compute = Callable[[Sequence[Array | None]], list[Array]]


class FakeEngine:
    """Computes with a function, and remembers what it was given."""

    name = "fake"

    def __init__(self, signature: Signature, compute: Compute, *, uses_out: bool = False) -> None:
        self.signature = signature
        self.runs: list[list[Array | None]] = []
        self.given_out: list[bool] = []
        self._compute = compute
        self._uses_out = uses_out

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute."""
        self.runs.append([None if one is None else one.copy() for one in inputs])
        self.given_out.append(out is not None)
        results = self._compute(inputs)
        if out is None or not self._uses_out:
            return results
        for destination, result in zip(out, results, strict=True):
            assert destination is not None
            destination[...] = result
        return [destination for destination in out if destination is not None]

    def close(self) -> None:
        """Nothing to release."""


class CuttingEngine(FakeEngine):
    """One that cuts batches by itself (`RunsRows`)."""

    def run_rows(
        self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        return self.run(inputs, out)


def make_lane(
    lane: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    compute: Compute,
    *,
    batches: bool = True,
    max_rows: int | None = None,
    max_batch_size: int = 8,
    max_delay_ns: int = 0,
    preferred_batch_sizes: tuple[int, ...] = (),
    uses_out: bool = False,
    cuts: bool = False,
) -> LoadedLane:
    """A lane with a fake engine."""
    signature = Signature(tuple(inputs), tuple(outputs), batches, max_rows)
    config = LaneConfig(
        lane=lane,
        model=f"model-{lane}",
        version=1,
        path="nowhere",
        engine="fake",
        max_batch_size=max_batch_size,
        max_delay_ns=max_delay_ns,
        max_queue_size=1024,
        max_request_rows=1000,
        run_timeout_ns=60 * 10**9,
        threads=1,
        parameters={},
        preferred_batch_sizes=preferred_batch_sizes,
    )
    kind = CuttingEngine if cuts else FakeEngine
    return LoadedLane(config, kind(signature, compute, uses_out=uses_out), signature)


def doubling_lane(lane: int = 1, width: int = 3, **options: Any) -> LoadedLane:
    """FP32[-1, width] in, twice that out."""
    specs = [TensorSpec("x", DType.FP32, (-1, width))]
    return make_lane(lane, specs, [TensorSpec("y", DType.FP32, (-1, width))], double, **options)


def double(inputs: Sequence[Array | None]) -> list[Array]:
    """Twice each input."""
    return [2 * one for one in inputs if one is not None]


def engine_of(lane: LoadedLane) -> FakeEngine:
    """The lane's fake engine."""
    assert isinstance(lane.engine, FakeEngine)
    return lane.engine
