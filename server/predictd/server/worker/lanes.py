"""Loading and warming a lane: after this, the first real request meets nothing new."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictd.engines.api import (
    DType,
    Engine,
    EngineError,
    EngineOptions,
    InvalidInputError,
    Signature,
    TensorSpec,
)
from predictd.engines.registry import resolve
from predictd.server.config.lane import LaneConfig, LaneSignature, WireTensor
from predictd.server.worker.runner import Array, LoadedLane

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmLane:
    """A lane that is ready to serve, and what it took."""

    lane: LoadedLane
    load_seconds: float
    warmup_seconds: float


def load_lane(config: LaneConfig, *, owns_cores: bool) -> WarmLane:
    """Load a model and run it once for each batch size that will occur.

    Raises:
        EngineError: The model cannot be served; the message is one line.
    """
    started = time.monotonic()
    options = EngineOptions(threads=config.threads, owns_cores=owns_cores, parameters=config.parameters)
    engine = resolve(config.engine)(Path(config.path), options)
    loaded = time.monotonic()
    signature = engine.signature
    if signature.batches and not _batches_indeed(engine, signature):
        _log.warning(
            "model %s has a varying first dimension that is not a batch: served unbatched", config.model
        )
        signature = dataclasses.replace(signature, batches=False)
    warm_up(engine, signature, config)
    return WarmLane(LoadedLane(config, engine, signature), loaded - started, time.monotonic() - loaded)


def batch_sizes(max_batch_size: int) -> list[int]:
    """The batch sizes to warm: the powers of two up to the limit, and the limit."""
    sizes = [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size]
    return [*sizes, max_batch_size]


def warm_up(engine: Engine, signature: Signature, config: LaneConfig) -> None:
    """Run zeros through the engine at every batch size.

    A model with other varying dimensions may reject the size that is guessed for them; that is no defect of the model.

    Raises:
        EngineError: The model fails on inputs of its own fixed shape.
    """
    guessed = any(size < 0 for spec in signature.inputs for size in spec.shape[1:])
    sizes = [*batch_sizes(config.max_batch_size), *config.preferred_batch_sizes]
    sizes = sorted(set(sizes)) if signature.batches else [1]
    try:
        for rows in sizes:
            engine.run([zeros(spec, rows) for spec in signature.inputs])
    except (EngineError, ValueError) as error:
        if not guessed and signature.batches:
            raise
        _log.info("model %s is not warmed up: %s", config.model, error)


def _batches_indeed(engine: Engine, signature: Signature) -> bool:
    """Whether two rows in give two rows out of every output."""
    try:
        results = engine.run([zeros(spec, 2) for spec in signature.inputs])
    except InvalidInputError:
        return True
    return all(result.ndim >= 1 and result.shape[0] == 2 for result in results)


def zeros(spec: TensorSpec, rows: int) -> Array | None:
    """An input of zeros (empty strings): `rows` in a varying first dimension, 1 in every other one that varies."""
    if spec.optional:
        return None
    shape = tuple((rows if at == 0 else 1) if size < 0 else size for at, size in enumerate(spec.shape))
    if spec.dtype is DType.BYTES:
        return np.full(shape, b"", object)
    return np.zeros(shape, spec.dtype.numpy)


def wire_signature(lane: LoadedLane) -> LaneSignature:
    """The signature as front ends get to know it."""
    signature = lane.signature
    return LaneSignature(
        inputs=tuple(WireTensor(s.name, int(s.dtype), s.shape, s.optional) for s in signature.inputs),
        outputs=tuple(WireTensor(s.name, int(s.dtype), s.shape, s.optional) for s in signature.outputs),
        batches=signature.batches,
        max_rows=signature.max_rows,
        engine=lane.engine.name,
    )
