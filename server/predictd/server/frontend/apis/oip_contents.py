"""Typed tensor contents of the Open Inference Protocol, turned into the raw bytes that all else speaks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from predictd.engines.api import DType
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.limits import RANK_MAX, shown_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from predictd.protos.oip import grpc_service_pb2 as pb

# FP16 and BF16 have no field.
_FIELDS: Mapping[DType, str] = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}
# As the fields carry them, which is wider than the small integers are.
_CARRIED = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}


def raw_contents(name: str, dtype: DType, shape: Sequence[int], contents: pb.InferTensorContents) -> bytes:
    """The raw form of an input's typed contents.

    Args:
        name: Of the input.
        dtype: Of the input.
        shape: Of the input; how many elements it says must be there.
        contents: The elements.

    Raises:
        InvalidRequestError: The elements are in a field of another dtype, or not as many as the shape says,
            or too large for the dtype.
    """
    field = _FIELDS.get(dtype)
    if field is None:
        raise InvalidRequestError(
            f"input {name!r}: {dtype.name} has no typed contents, send raw_input_contents"
        )
    for present, _ in contents.ListFields():
        if present.name != field:
            raise InvalidRequestError(
                f"input {name!r}: {dtype.name} is sent in {field}, not in {present.name}"
            )
    values = getattr(contents, field)
    if len(shape) > RANK_MAX or min(shape, default=0) < 0 or len(values) != math.prod(shape):
        raise InvalidRequestError(
            f"input {name!r}: shape {shown_shape(shape)} does not fit {len(values)} elements of {field}"
        )
    if dtype is DType.BYTES:
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return _numbers(name, dtype, field, values)


def _numbers(name: str, dtype: DType, field: str, values: Sequence[float]) -> bytes:
    array = np.fromiter(values, _CARRIED.get(field, dtype.numpy), len(values))
    narrow = array.astype(dtype.numpy.newbyteorder("<"), copy=False)
    if field in _CARRIED and (misfits := array[narrow != array]).size:
        raise InvalidRequestError(f"input {name!r}: {misfits[0]} is not an {dtype.name}")
    return narrow.tobytes()
