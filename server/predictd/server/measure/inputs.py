"""What a model is measured with: arrays from files, or numbers that are made up, in batches of any size."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.client import BFloat16
from predictd.engines.api import Array, DType, ModelLoadError, Signature, TensorSpec
from predictd.server.measure.engine_process import MeasureError
from predictd.server.worker.warmup import inputs_in_order

if TYPE_CHECKING:
    from predictd.server.config.lane import LaneSignature, WireTensor

SUFFIXES = (".npz", ".npy")
# All that is read lies in memory at once.
READ_BYTES_MAX = 4 * 2**30
# Converted into each other where models differ in them alone.
FLOATS = frozenset({DType.FP16, DType.BF16, DType.FP32, DType.FP64})
# Every model gets the same, each time.
_SEED = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs that belong together.

    Attributes:
        place: Where they come from, for messages.
        arrays: In the order in which the model takes them; None for an optional one that is absent.
    """

    place: str
    arrays: tuple[Array | None, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers to make up: from `low` to `high`, both included where they are integers."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MakeUp:
    """What is said of inputs that are made up, by name.

    Attributes:
        shapes: Of inputs whose dimensions vary; -1 first stands for the rows of a batch.
        ranges: Of the values; without one floats are from 0 to 1, integers 0 or 1.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


def signature_of(wire: LaneSignature) -> Signature:
    """The signature as an engine has it, from how it travels."""

    def specs(tensors: Sequence[WireTensor]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t.name, DType(t.dtype), t.shape, t.optional) for t in tensors)

    return Signature(specs(wire.inputs), specs(wire.outputs), wire.batches, wire.max_rows)


def read_samples(path: Path, signature: Signature) -> list[Sample]:
    """Read a file, or all the files of a folder in the order of their names.

    An .npz file has one array for each input; an .npy file is the input of a model that has one.

    Raises:
        MeasureError: There is none, or what it holds is not what the model takes; names the file and the input.
    """
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
        if not files:
            raise MeasureError(f"{path}: no {' or '.join(SUFFIXES)} file in it")
    samples, size_bytes = [], 0
    for file in files:
        sample = sample_of(str(file), _read(file, signature), signature)
        size_bytes += sum(array.nbytes for array in sample.arrays if array is not None)
        if size_bytes > READ_BYTES_MAX:
            raise MeasureError(f"{path}: more than {READ_BYTES_MAX >> 30} GiB of inputs")
        samples.append(sample)
    return samples


def sample_of(place: str, arrays: Mapping[str, Array], signature: Signature) -> Sample:
    """Check inputs that are given by name. Raises MeasureError as `read_samples` does."""
    bf16 = {spec.name for spec in signature.inputs if spec.dtype is DType.BF16}
    # NumPy's files have no bfloat16: it comes back as two bytes of unknown type.
    known = {
        name: array.view(np.uint16) if name in bf16 and array.dtype == np.dtype("V2") else array
        for name, array in arrays.items()
    }
    try:
        return Sample(place, tuple(inputs_in_order(place, known, signature)))
    except ModelLoadError as error:
        raise MeasureError(str(error)) from error


def _read(file: Path, signature: Signature) -> dict[str, Array]:
    if file.suffix not in SUFFIXES:
        raise MeasureError(f"{file}: inputs are {' or '.join(SUFFIXES)} files")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return dict(loaded)
    except OSError as error:
        raise MeasureError(f"{file}: {str(error.strerror or error).lower()}") from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise MeasureError(f"{file}: no file of numbers or text as NumPy writes it") from error
    needed = [spec.name for spec in signature.inputs if not spec.optional]
    if len(needed) != 1:
        raise MeasureError(f"{file}: one array, but the model takes {', '.join(needed)}: give an .npz file")
    return {needed[0]: loaded}


def made_up(signature: Signature, rows: int, wish: MakeUp, *, remedy: str, number: int = 0) -> Sample:
    """Random inputs, always the same ones; text is empty, and optional inputs are left out.

    Args:
        signature: Of the model.
        rows: Of a model that batches.
        wish: What is said of them.
        remedy: What to do where the model does not say how large an input is; `{name}` and `{shape}` stand for those.
        number: Another one gives other inputs.

    Raises:
        MeasureError: The size of an input is not known, or what is said of it does not fit.
    """
    by_name = {spec.name: spec for spec in signature.inputs}
    for name in (*wish.shapes, *wish.ranges):
        if name not in by_name:
            raise MeasureError(f"the model has no input {name!r}; it takes {', '.join(by_name)}")
    random = np.random.default_rng((_SEED, number))
    return Sample(
        "random numbers",
        tuple(
            None
            if spec.optional and spec.name not in wish.shapes
            else _filled(
                spec.dtype, _shape(spec, rows, signature, wish, remedy), wish.ranges.get(spec.name), random
            )
            for spec in signature.inputs
        ),
    )


def _shape(spec: TensorSpec, rows: int, signature: Signature, wish: MakeUp, remedy: str) -> tuple[int, ...]:
    said = wish.shapes.get(spec.name, spec.shape)
    fits = len(said) == len(spec.shape) and all(
        own in (-1, size) or (size == -1 and at == 0)
        for at, (own, size) in enumerate(zip(spec.shape, said, strict=False))
    )
    if not fits:
        raise MeasureError(f"input {spec.name!r}: the model takes {_text(spec.shape)}, not {_text(said)}")
    shape = (rows, *said[1:]) if signature.batches and said[0] == -1 else said
    if any(size < 0 for size in shape):
        example = ("N", *("1" if size < 0 else str(size) for size in said[1:]))
        told = remedy.format(name=spec.name, shape="x".join(example))
        raise MeasureError(f"input {spec.name!r} has dimensions that vary, {_text(spec.shape)}: {told}")
    return shape


def _text(shape: Sequence[int]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape) or "a scalar"


def _filled(dtype: DType, shape: tuple[int, ...], wanted: Range | None, random: np.random.Generator) -> Array:
    if dtype is DType.BYTES:
        return np.full(shape, b"", object)
    within = wanted or Range(0.0, 1.0)
    if dtype is DType.BF16 or dtype.numpy.kind == "f":
        floats = (random.random(shape, np.float32) * (within.high - within.low) + within.low).astype(
            np.float32
        )
        return converted(floats, DType.FP32, dtype)
    return random.integers(int(within.low), int(within.high), shape, endpoint=True).astype(dtype.numpy)


def converted(array: Array, own: DType, wanted: DType) -> Array:
    """Floating-point numbers of one type as another; anything else as it is."""
    if own is wanted or own not in FLOATS or wanted not in FLOATS:
        return array
    wide = (array.astype(np.uint32) << 16).view(np.float32) if own is DType.BF16 else array
    if wanted is DType.BF16:
        return np.asarray(BFloat16.from_float32(wide.astype(np.float32)).bits)
    return wide.astype(wanted.numpy)


def batch(samples: Sequence[Sample], rows: int, signature: Signature) -> tuple[Array | None, ...]:
    """So many rows of all samples, one after the other and again from the first.

    Args:
        samples: At least one.
        rows: Of the batch.
        signature: Of a model that batches.

    Raises:
        MeasureError: Two samples do not fit into one batch; names both and the input.
    """
    return tuple(_column(samples, number, rows, spec.name) for number, spec in enumerate(signature.inputs))


def _column(samples: Sequence[Sample], number: int, rows: int, name: str) -> Array | None:
    parts: list[Array] = []
    have = 0
    for sample in samples:
        part, first = sample.arrays[number], samples[0].arrays[number]
        if (part is None) != (first is None) or (
            part is not None and first is not None and part.shape[1:] != first.shape[1:]
        ):
            raise MeasureError(
                f"input {name!r}: {samples[0].place} and {sample.place} have shapes that make no batch"
            )
        if part is not None:
            parts.append(part)
            have += len(part)
        if have >= rows:
            break
    if not parts:
        return None
    together = np.concatenate(parts)
    if not len(together):
        raise MeasureError(f"input {name!r}: {samples[0].place} has no rows")
    return np.ascontiguousarray(together[np.arange(rows) % len(together)])


def write_inputs(path: Path, arrays: Sequence[Array | None]) -> None:
    """Write inputs for a process that runs them (`predictd.server.measure.messages.Take`)."""
    content: dict[str, Any] = {
        str(number): np.array(array.tolist(), "S").reshape(array.shape) if array.dtype == object else array
        for number, array in enumerate(arrays)
        if array is not None
    }
    np.savez(path, **content)
