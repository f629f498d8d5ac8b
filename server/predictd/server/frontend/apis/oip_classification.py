"""Triton's classification extension: the highest classes of an output instead of the output."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import DType
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.inference import InferResponse, OutputTensor, TensorInfo, VersionInfo

Array = npt.NDArray[Any]

# They are put into order on the event loop, for which all other requests wait.
ELEMENTS_MAX = 1_000_000
# Each becomes a string.
CLASSES_MAX = 100_000

_LENGTH = struct.Struct("<I")
_NOT_NUMBERS = (DType.BOOL, DType.BYTES)


def check_classification(version: VersionInfo, asked: Sequence[tuple[str, int]]) -> None:
    """Before the run: can there be classes? Outputs that the model does not have are not looked at.

    Raises:
        InvalidRequestError: An output is not made of numbers.
    """
    outputs = {output.name: output for output in version.outputs}
    for name, _ in asked:
        output = outputs.get(name)
        if output is not None and output.dtype in _NOT_NUMBERS:
            raise InvalidRequestError(f"output {name!r} is {output.dtype.name}: only numbers have classes")


def classified(
    response: InferResponse, version: VersionInfo, asked: Sequence[tuple[str, int]]
) -> InferResponse:
    """An answer with classes in place of the outputs for which they are asked.

    Raises:
        InvalidRequestError: An output has too many elements.
    """
    counts: Mapping[str, int] = dict(asked)
    known = {output.name: output for output in version.outputs}
    outputs = [
        _classes(output, known[output.name], counts[output.name], batches=version.batches)
        if output.name in counts
        else output
        for output in response.outputs
    ]
    return dataclasses.replace(response, outputs=outputs)


def _classes(output: OutputTensor, info: TensorInfo, count: int, *, batches: bool) -> OutputTensor:
    """The classes of each row as BYTES [rows, classes], or [classes] of a model that does not batch."""
    rows = output.shape[0] if batches else 1
    width = math.prod(output.shape[1:] if batches else output.shape)
    count = min(count, width)
    for size, limit, what in (
        (rows * width, ELEMENTS_MAX, "elements"),
        (rows * count, CLASSES_MAX, "classes"),
    ):
        if size > limit:
            raise InvalidRequestError(
                f"output {output.name!r} has {size} {what}; a classification may have {limit}"
            )
    scores = _numbers(output).reshape(rows, width)
    data = bytearray()
    for text in _texts(scores, _highest(scores, count), info.labels):
        encoded = text.encode()
        data += _LENGTH.pack(len(encoded)) + encoded
    return OutputTensor(output.name, DType.BYTES, (rows, count) if batches else (count,), bytes(data))


def _numbers(output: OutputTensor) -> Array:
    if output.dtype is DType.BF16:
        return (np.frombuffer(output.data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(output.data, output.dtype.numpy)


def _highest(scores: Array, count: int) -> Array:
    """Indices of the highest scores of each row, descending; of equal ones the first. NaN is the lowest."""
    if scores.dtype.kind == "f":
        scores = np.where(np.isnan(scores), -np.inf, scores)
    last = scores.shape[1] - 1
    ascending: Array = last - np.argsort(scores[:, ::-1], axis=1, kind="stable")
    return ascending[:, ::-1][:, :count]


def _texts(scores: Array, indices: Array, labels: Sequence[str]) -> Iterator[str]:
    values = np.take_along_axis(scores, indices, axis=1)
    form = "%f:%d" if scores.dtype.kind == "f" else "%d:%d"
    for value, index in zip(values.ravel().tolist(), indices.ravel().tolist(), strict=True):
        label = labels[index] if index < len(labels) else ""
        text = form % (value, index)
        yield f"{text}:{label}" if label else text
