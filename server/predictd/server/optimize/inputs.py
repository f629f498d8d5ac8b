"""Real inputs of a model from files: what quantization is calibrated with, and what outputs are compared on.

A sample is one request: an `.npz` file with an array for each input, or, for a model with a single input, an `.npy`
file. A folder holds any number of them and is read in the order of their names.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.server.optimize.errors import OptimizeError
from predictd.server.worker.warmup import is_guess, made_up

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]

SUFFIXES = (".npz", ".npy")


def read_inputs(path: Path, signature: Signature) -> tuple[Sample, ...]:
    """The samples of a folder, or the one of a file.

    Args:
        path: A folder, or a file of its kind.
        signature: Of the model; every array is checked against it.

    Raises:
        OptimizeError: There are none, or one of them is nothing that the model takes.
    """
    return tuple(_sample(file, signature) for file in _files(path))


def batches(samples: Sequence[Sample], signature: Signature, rows: int) -> Iterator[Sample]:
    """The rows of all samples in batches of `rows`, a smaller one at the end of each run of equal shapes.

    Samples of a model that does not batch stay as they are.
    """
    if not signature.batches:
        yield from samples
        return
    pending: list[Sample] = []
    for sample in samples:
        for row in _rows(sample):
            if pending and (_row_shapes(row) != _row_shapes(pending[0])):
                yield _joined(pending)
                pending = []
            pending.append(row)
            if len(pending) == rows:
                yield _joined(pending)
                pending = []
    if pending:
        yield _joined(pending)


def digest(samples: Sequence[Sample]) -> str:
    """Names, dtypes, shapes and bytes of all samples, in order."""
    total = hashlib.sha256()
    for sample in samples:
        for name, array in sorted(sample.items()):
            total.update(repr((name, array.dtype.str, array.shape)).encode())
            total.update(array.tobytes())
        total.update(b"\0")
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    except OSError as error:
        raise OptimizeError(f"{path}: {str(error.strerror).lower()}") from error
    if not files:
        raise OptimizeError(f"{path}: there is no {' and no '.join(SUFFIXES)} file in this folder")
    return files


def _sample(path: Path, signature: Signature) -> Sample:
    arrays = _arrays(path, signature)
    by_name = {spec.name: spec for spec in signature.inputs}
    extra = min(arrays.keys() - by_name.keys(), default=None)
    if extra is not None:
        raise OptimizeError(f"{path}: the model has no input {extra!r}; it takes {', '.join(by_name)}")
    sample = {}
    for name, spec in by_name.items():
        if name in arrays:
            sample[name] = _checked(path, spec, arrays[name], batches=signature.batches)
        elif not spec.optional:
            raise OptimizeError(f"{path}: input {name!r} is missing")
    if signature.batches:
        _check_rows(path, sample)
    return sample


def _arrays(path: Path, signature: Signature) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {_only_input(path, signature): loaded}
        with loaded:
            return dict(loaded)
    except OSError as error:
        raise OptimizeError(f"{path}: {str(error.strerror or error).lower()}") from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise OptimizeError(f"{path}: not an {' or '.join(SUFFIXES)} file of numbers") from error


def _only_input(path: Path, signature: Signature) -> str:
    needed = [spec.name for spec in signature.inputs if not spec.optional]
    if len(needed) != 1:
        raise OptimizeError(
            f"{path}: a single array, and the model takes {', '.join(needed)}: "
            "write an .npz file with an array for each"
        )
    return needed[0]


def _checked(path: Path, spec: TensorSpec, array: Array, *, batches: bool) -> Array:
    where = f"{path}: input {spec.name!r}"
    array = _bits(array) if spec.dtype is DType.BF16 else array
    if spec.dtype is DType.BYTES:
        raise OptimizeError(f"{where} is text, which is not read from files")
    if array.dtype != spec.dtype.numpy:
        raise OptimizeError(f"{where} is {array.dtype}, the model takes {spec.dtype.numpy}")
    if len(array.shape) != len(spec.shape) or any(
        size not in (-1, given) for size, given in zip(spec.shape, array.shape, strict=True)
    ):
        hint = ": the first dimension is the batch" if batches and len(array.shape) < len(spec.shape) else ""
        raise OptimizeError(
            f"{where} has the shape {list(array.shape)}, the model takes {_shape(spec)}{hint}"
        )
    if array.size == 0:
        raise OptimizeError(f"{where} has the shape {list(array.shape)}: there is nothing in it")
    _check_finite(where, array)
    return np.ascontiguousarray(array)


def _check_finite(where: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise OptimizeError(
            f"{where} has {int(wrong.sum())} values that are no finite numbers, "
            f"the first is {array[first]} at {list(first)}"
        )


def _check_rows(path: Path, sample: Sample) -> None:
    rows = {name: array.shape[0] for name, array in sample.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in rows.items())
        raise OptimizeError(f"{path}: the inputs differ in their number of rows: {listed}")


def _bits(array: Array) -> Array:
    # NumPy's files have no bfloat16: it was written as its bits, or comes back as two bytes of unknown type.
    return array.view(np.uint16) if array.dtype == np.dtype("V2") else array


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join('any' if size < 0 else str(size) for size in spec.shape)}]"


def _rows(sample: Sample) -> Iterator[Sample]:
    count = len(next(iter(sample.values())))
    for row in range(count):
        yield {name: array[row : row + 1] for name, array in sample.items()}


def _row_shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in sample.items()}


def _joined(rows: Sequence[Sample]) -> Sample:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def made_up_inputs(path: Path, signature: Signature, rows: int) -> tuple[Sample, ...]:
    """Random numbers in place of real inputs.

    Raises:
        OptimizeError: The model does not say how large its inputs are.
    """
    if is_guess(signature):
        raise OptimizeError(f"{path}: its inputs have dimensions that vary, or text: give some with --inputs")
    arrays = {spec.name: made_up(spec, rows, "random") for spec in signature.inputs}
    return ({name: array for name, array in arrays.items() if array is not None},)
