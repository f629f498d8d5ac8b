"""Real inputs of a model: what quantization is calibrated with, and what outputs are compared on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import Signature
from predictd.server.measure.inputs import read_samples
from predictd.server.optimize.errors import OptimizeError

Array = npt.NDArray[Any]
# One request: an array for each input.
Sample = Mapping[str, Array]


def read_inputs(path: Path, signature: Signature) -> tuple[Sample, ...]:
    """The samples of a folder, or the one of a file, as `read_samples` reads them.

    Raises:
        MeasureError: There are none, or one of them is nothing that the model takes.
        OptimizeError: Values are no numbers, or a sample has no rows or contradicting ones.
    """
    samples = []
    for read in read_samples(path, signature):
        sample = _by_name(read.arrays, signature)
        _check_sizes(read.place, sample, signature)
        for name, array in sample.items():
            _check_finite(f"{read.place}: input {name!r}", array)
        samples.append(sample)
    return tuple(samples)


def batches(samples: Sequence[Sample], signature: Signature, rows: int) -> Iterator[Sample]:
    """The rows of all samples in batches of `rows`; fewer where the shape of a row changes, and at the end.

    Samples of a model that does not batch stay as they are.
    """
    if not signature.batches:
        yield from samples
        return
    pending: list[Sample] = []
    for row in (row for sample in samples for row in _rows(sample)):
        if pending and (len(pending) == rows or _row_shapes(row) != _row_shapes(pending[0])):
            yield _joined(pending)
            pending = []
        pending.append(row)
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


def _by_name(arrays: Sequence[Array | None], signature: Signature) -> Sample:
    return {
        spec.name: array for spec, array in zip(signature.inputs, arrays, strict=True) if array is not None
    }


def _check_sizes(place: str, sample: Sample, signature: Signature) -> None:
    for name, array in sample.items():
        if array.size == 0:
            raise OptimizeError(f"{place}: input {name!r} is empty: its shape is {list(array.shape)}")
    rows = {name: array.shape[0] for name, array in sample.items()} if signature.batches else {}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise OptimizeError(f"{place}: inputs with different numbers of rows: {listed}")


def _check_finite(where: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise OptimizeError(
            f"{where}: {int(wrong.sum())} of its values are no finite numbers; "
            f"the first is {array[first]} at {list(first)}"
        )


def _rows(sample: Sample) -> Iterator[Sample]:
    for row in range(len(next(iter(sample.values())))):
        yield {name: array[row : row + 1] for name, array in sample.items()}


def _row_shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in sample.items()}


def _joined(rows: Sequence[Sample]) -> Sample:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
