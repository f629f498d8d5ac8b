"""tf.Example, the input of Classify and Regress: features by name, turned into a model's inputs.

A model takes the features that have the names of its inputs; others are nobody's concern, as in TensorFlow. Each
example is one row.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.engines.api import DType
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.tfs_tensors import join_strings
from predictd.server.frontend.inference import InputTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from predictd.protos.tfs import example_pb2
    from predictd.protos.tfs import serving_pb2 as pb
    from predictd.server.frontend.inference import TensorInfo

    Features = Mapping[str, example_pb2.Feature]
    # Floats, integers or bytes, as the feature's kind says.
    Values = Sequence[Any]

# What a feature can carry without a loss. There is none for FP16 and BF16.
_KINDS: Mapping[DType, str] = {
    DType.BYTES: "bytes_list",
    DType.FP32: "float_list",
    DType.FP64: "float_list",
} | dict.fromkeys(
    (
        DType.BOOL,
        DType.INT8,
        DType.INT16,
        DType.INT32,
        DType.INT64,
        DType.UINT8,
        DType.UINT16,
        DType.UINT32,
        DType.UINT64,
    ),
    "int64_list",
)


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples as they came.

    Attributes:
        rows: The features of each.
        context: Features of all that have none of the same name.
    """

    rows: Sequence[Features]
    context: Features

    def feature(self, row: int, name: str) -> example_pb2.Feature | None:
        """A feature of one example, None if it has none of that name."""
        for features in (self.rows[row], self.context):
            if name in features:
                return features[name] if features[name].WhichOneof("kind") else None
        return None


def examples(message: pb.Input) -> Examples:
    """The examples of a request.

    Raises:
        InvalidRequestError: There are none.
    """
    kind = message.WhichOneof("kind")
    listed = message.example_list if kind == "example_list" else message.example_list_with_context
    if not listed.examples:
        raise InvalidRequestError("Input is empty.")
    context = message.example_list_with_context.context.features.feature
    return Examples([example.features.feature for example in listed.examples], context)


def example_inputs(given: Examples, wanted: Iterable[TensorInfo], bytes_max: int) -> list[InputTensor]:
    """A model's inputs, built from examples.

    Args:
        given: The examples.
        wanted: The model's inputs.
        bytes_max: How large they may become together: a context is repeated for each example.

    Raises:
        InvalidRequestError: A feature is missing or has the wrong type or number of values, or an input cannot be
            built from features.
    """
    inputs = []
    for info in wanted:
        if info.optional and all(given.feature(row, info.name) is None for row in range(len(given.rows))):
            continue
        tensor = _input(given, info, bytes_max)
        bytes_max -= len(tensor.data)
        inputs.append(tensor)
    return inputs


def _input(given: Examples, info: TensorInfo, bytes_max: int) -> InputTensor:
    row_shape = info.shape[1:]
    if info.dtype not in _KINDS or not info.shape or -1 in row_shape:
        raise InvalidRequestError(
            f"input '{info.name}' cannot be built from features: it is {info.dtype.name}{list(info.shape)}"
        )
    size = math.prod(row_shape)
    rows = [_values(given, row, info, size) for row in range(len(given.rows))]
    count = len(rows) * size
    if _size_bytes(info.dtype, rows, count) > bytes_max:
        raise InvalidRequestError(
            f"Feature: {info.name}: its values in {len(rows)} examples are larger than a message may be "
            f"({bytes_max} bytes)"
        )
    return InputTensor(info.name, info.dtype, (len(rows), *row_shape), _raw(info, rows, count))


def _values(given: Examples, row: int, info: TensorInfo, size: int) -> Values:
    """The values of one feature of one example, checked."""
    kind = _KINDS[info.dtype]
    feature = given.feature(row, info.name)
    where = f"Feature: {info.name}, example {row}"
    if feature is None:
        raise InvalidRequestError(f"{where}: it is required but could not be found")
    if feature.WhichOneof("kind") != kind:
        raise InvalidRequestError(
            f"{where}: data types don't match: it is sent in {feature.WhichOneof('kind')}, "
            f"and {info.dtype.name} takes {kind}"
        )
    values: Values = getattr(feature, kind).value
    if len(values) != size:
        raise InvalidRequestError(f"{where}: it has {len(values)} values, and the model takes {size}")
    return values


def _size_bytes(dtype: DType, rows: Sequence[Values], count: int) -> int:
    if dtype is not DType.BYTES:
        return count * dtype.itemsize
    return 4 * count + sum(map(len, itertools.chain.from_iterable(rows)))


def _raw(info: TensorInfo, rows: Sequence[Values], count: int) -> bytes:
    values = itertools.chain.from_iterable(rows)
    if info.dtype is DType.BYTES:
        return join_strings(values)
    if _KINDS[info.dtype] == "float_list":
        return np.fromiter(values, info.dtype.numpy, count).tobytes()
    numbers = np.fromiter(values, np.int64, count)
    lowest, highest = _bounds(info.dtype)
    for number in (int(numbers.min(initial=lowest)), int(numbers.max(initial=lowest))):
        if not lowest <= number <= highest:
            raise InvalidRequestError(f"Feature: {info.name}: {number} is not an {info.dtype.name}")
    return numbers.astype(info.dtype.numpy).tobytes()


def _bounds(dtype: DType) -> tuple[int, int]:
    if dtype is DType.BOOL:
        return 0, 1
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)
