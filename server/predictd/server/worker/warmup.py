"""What is run before a model is served: made-up batches of all sizes but huge ones, and recorded requests."""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from predictd.engines.api import (
    Array,
    DType,
    Engine,
    EngineError,
    LoadCancelledError,
    ModelLoadError,
    Signature,
    TensorSpec,
)
from predictd.engines.cancellation import Cancellation
from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import WarmupSample, WarmupTensor
from predictd.server.worker.engine_memory import inputs_bytes
from predictd.server.worker.strings import decode_strings

_log = logging.getLogger(__name__)

_FILE_LIMIT_BYTES = 2**30
# Of the inputs of a made-up batch. Engines keep what their largest run took: with tensors of many megabytes that would
# be gigabytes, before anybody has asked for anything.
WARMED_BYTES_MAX = 64 * 2**20
# Every model gets the same, each time.
_SEED = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """Inputs by name, how often to run them, and what to name when they fail."""

    place: str
    inputs: Mapping[str, Array]
    runs: int = 1


@dataclass(frozen=True, slots=True)
class _Runs:
    """An engine that stops running once its load is given up."""

    engine: Engine
    cancel: Cancellation

    def __call__(self, inputs: list[Array | None]) -> None:
        if self.cancel.is_set:
            raise LoadCancelledError("the load was given up")
        self.engine.run(inputs)


def warm_up(engine: Engine, signature: Signature, config: LaneConfig, cancel: Cancellation) -> None:
    """Run what the configuration asks for; zeros at every batch size where it says nothing.

    Raises:
        LoadCancelledError: The load was given up; seen after each run.
        EngineError: The model fails on inputs of its own fixed shape, or on recorded ones; one line.
    """
    mode = "zeros" if config.warmup is None else config.warmup.mode
    if mode == "none":
        return
    run = _Runs(engine, cancel)
    _run_batch_sizes(run, signature, config, "random" if mode == "random" else "zeros")
    for request in _recorded(config):
        inputs = inputs_in_order(request.place, request.inputs, signature)
        try:
            for _ in range(request.runs):
                run(inputs)
        except LoadCancelledError:
            raise
        except (EngineError, ValueError) as error:
            raise ModelLoadError(f"{request.place}: warm-up failed: {error}") from error


def batch_sizes(max_batch_size: int) -> list[int]:
    """The batch sizes to warm: the powers of two up to the limit, and the limit."""
    sizes = [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size]
    return [*sizes, max_batch_size]


def warmed_sizes(signature: Signature, config: LaneConfig) -> list[int]:
    """The batch sizes that are run with made-up inputs, the largest first; never none.

    What an engine's memory arena took for the largest is enough for all others. The other way round, it would take
    more each time and have about twice as much in the end.
    """
    if not signature.batches:
        return [1]
    sizes = {*batch_sizes(config.max_batch_size), *config.preferred_batch_sizes}
    # A batch with more rows than the engine takes is run in slices.
    sizes = {min(size, signature.max_rows or size) for size in sizes}
    small = {size for size in sizes if inputs_bytes(signature, size) <= WARMED_BYTES_MAX}
    return sorted(small or {min(sizes)}, reverse=True)


def made_up(spec: TensorSpec, rows: int, data: Literal["zeros", "random"] = "zeros") -> Array | None:
    """An input: `rows` in a varying first dimension, 1 in every other one that varies; None for an optional one.

    Random numbers are from 0 to 1, integers either 0 or 1, which most tables have; text is empty.
    """
    if spec.optional:
        return None
    shape = tuple((rows if at == 0 else 1) if size < 0 else size for at, size in enumerate(spec.shape))
    return _filled(spec.dtype, shape, data)


def is_guess(signature: Signature) -> bool:
    """Made-up inputs may be none that the model takes: it has text, or sizes that the signature does not tell."""
    return any(
        spec.dtype is DType.BYTES or any(size < 0 for size in spec.shape[1:]) for spec in signature.inputs
    )


def _filled(dtype: DType, shape: tuple[int, ...], data: Literal["zeros", "random"]) -> Array:
    if dtype is DType.BYTES:
        return np.full(shape, b"", object)
    if data == "zeros":
        return np.zeros(shape, dtype.numpy)
    random = np.random.default_rng(_SEED)
    if dtype is DType.BF16:
        return (random.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype.numpy.kind == "f":
        return random.random(shape, np.float32).astype(dtype.numpy)
    return random.integers(0, 2, shape).astype(dtype.numpy)


def _run_batch_sizes(
    run: _Runs, signature: Signature, config: LaneConfig, data: Literal["zeros", "random"]
) -> None:
    """A model may reject a size, or a text, that is guessed: no defect of the model."""
    try:
        for rows in warmed_sizes(signature, config):
            run([made_up(spec, rows, data) for spec in signature.inputs])
    except LoadCancelledError:
        raise
    except (EngineError, ValueError) as error:
        if not is_guess(signature) and signature.batches:
            raise
        _log.info("model %s is not warmed up: %s", config.model, error, extra=config.identity)


def _recorded(config: LaneConfig) -> Iterator[_Request]:
    warmup = config.warmup
    if warmup is None:
        return
    if warmup.file is not None:
        yield _Request(str(warmup.file), _read_npz(warmup.file))
    origin = config.origins.get("warmup", config.model)
    for sample in warmup.samples:
        yield _sample(sample, origin)


def inputs_in_order(place: str, inputs: Mapping[str, Array], signature: Signature) -> list[Array | None]:
    """The inputs as the engine takes them, once they are known to be what the model takes.

    Args:
        place: Where they come from, for messages.
        inputs: By name; text may be an array of NumPy's own strings.
        signature: Of the model.

    Raises:
        ModelLoadError: One is unknown, missing, or of another dtype or shape; one line.
    """
    known = {spec.name for spec in signature.inputs}
    for name in inputs:
        if name not in known:
            raise ModelLoadError(
                f"{place}: the model has no input {name!r}; it takes {', '.join(sorted(known))}"
            )
    return [_checked(place, inputs.get(spec.name), spec) for spec in signature.inputs]


def _checked(place: str, array: Array | None, spec: TensorSpec) -> Array | None:
    if array is None:
        if spec.optional:
            return None
        raise ModelLoadError(f"{place}: input {spec.name!r} is missing")
    if spec.dtype is DType.BYTES and array.dtype.kind in "SU":
        flat = [text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1)]
        array = np.array([*flat, None], object)[:-1].reshape(array.shape)
    fits = array.ndim == len(spec.shape) and all(
        size in (-1, given) for size, given in zip(spec.shape, array.shape, strict=True)
    )
    if array.dtype != spec.dtype.numpy or not fits:
        raise ModelLoadError(
            f"{place}: input {spec.name!r} is {array.dtype}{list(array.shape)}; "
            f"the model takes {spec.dtype.name}{list(spec.shape)}"
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(entry.file_size for entry in archive.infolist())
        if size_bytes > _FILE_LIMIT_BYTES:
            raise ModelLoadError(f"{path}: more than {_FILE_LIMIT_BYTES >> 20} MiB of warm-up inputs")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError as error:
        raise ModelLoadError(f"{path}: {str(error.strerror or error).lower()}") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelLoadError(f"{path}: not an .npz file of arrays: {error}") from error


def _sample(sample: WarmupSample, origin: str) -> _Request:
    files = ", ".join(str(tensor.file) for tensor in sample.inputs if tensor.file is not None)
    place = f"{origin}: warm-up {sample.name!r}" + (f" ({files})" if files else "")
    return _Request(place, {tensor.name: _sample_input(tensor) for tensor in sample.inputs}, sample.runs)


def _sample_input(tensor: WarmupTensor) -> Array:
    dtype = DType[tensor.dtype]
    if tensor.file is None:
        return _filled(dtype, tensor.shape, "random" if tensor.data == "random" else "zeros")
    shape = tensor.shape if tensor.rows is None else (1, *tensor.shape[1:])
    row = _read_elements(tensor.file, dtype, math.prod(shape)).reshape(shape)
    return row if tensor.rows is None else np.repeat(row, tensor.rows, axis=0)


def _read_elements(path: Path, dtype: DType, count: int) -> Array:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT_BYTES)
    except OSError as error:
        raise ModelLoadError(f"{path}: {str(error.strerror or error).lower()}") from error
    if dtype is DType.BYTES:
        try:
            return decode_strings(memoryview(data), count)
        except ValueError as error:
            raise ModelLoadError(f"{path}: not {count} elements of text: {error}") from error
    if len(data) != count * dtype.itemsize:
        raise ModelLoadError(
            f"{path}: {len(data)} bytes, but {count} elements of {dtype.name} have {count * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype.numpy)
