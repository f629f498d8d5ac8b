"""NumPy arrays to and from predictd.v1 tensors, which are raw little-endian, row-major bytes.

Two dtypes need a convention, since NumPy has neither:

* BF16 is sent from an array whose dtype is `bfloat16` (the package ml_dtypes has it) or from
  `BFloat16(bits)`, and comes back as its bits in `uint16`. `BFloat16(output)` sends it on.
* Strings are sent from arrays of `str` (as UTF-8) or `bytes`, and come back as an `object` array of `bytes`.

An output is a read-only view of the bytes that arrived; copy it to write into it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from predictd.client.errors import InternalError
from predictd.client.wire import Buffer
from predictd.protos.v1 import predictd_pb2 as v1

Array = npt.NDArray[Any]

# The dtype of the bytes on the wire; BYTES has none. BF16 goes as its bits.
_WIRE: dict[v1.DataType, np.dtype[Any]] = {
    v1.BOOL: np.dtype("?"),
    v1.UINT8: np.dtype("u1"),
    v1.UINT16: np.dtype("<u2"),
    v1.UINT32: np.dtype("<u4"),
    v1.UINT64: np.dtype("<u8"),
    v1.INT8: np.dtype("i1"),
    v1.INT16: np.dtype("<i2"),
    v1.INT32: np.dtype("<i4"),
    v1.INT64: np.dtype("<i8"),
    v1.FP16: np.dtype("<f2"),
    v1.BF16: np.dtype("<u2"),
    v1.FP32: np.dtype("<f4"),
    v1.FP64: np.dtype("<f8"),
}
# By name, which is the same in every byte order and for C types of equal width.
_BY_NAME: dict[str, v1.DataType] = {
    **{wire.name: dtype for dtype, wire in _WIRE.items() if dtype != v1.BF16},
    "bfloat16": v1.BF16,
}
# NumPy's kinds of text: str, bytes, Python objects, and NumPy 2's variable-width strings.
_STRING_KINDS = frozenset("USOT")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class BFloat16:
    """A BF16 tensor by its bits.

    Attributes:
        bits: The upper halves of float32 numbers.
    """

    bits: npt.NDArray[np.uint16]

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint16:
            raise TypeError(f"the bits of a BFloat16 are uint16, not {self.bits.dtype}")

    @classmethod
    def from_float32(cls, values: npt.ArrayLike) -> Self:
        """Round numbers to the nearest BF16, ties to even, as hardware does."""
        array = np.asarray(values, dtype=np.float32)
        wide = array.view(np.uint32)
        with np.errstate(over="ignore"):
            rounded = (wide + (np.uint32(0x7FFF) + ((wide >> 16) & 1))) >> 16
        # Rounding could carry a NaN's payload into the sign: a NaN keeps its upper half, made quiet.
        bits = np.where(np.isnan(array), (wide >> 16) | 0x40, rounded)
        return cls(np.asarray(bits, dtype=np.uint16))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The same numbers as float32, exactly."""
        return np.asarray(np.left_shift(self.bits, 16, dtype=np.uint32)).view(np.float32)


TensorLike = npt.ArrayLike | BFloat16


def describe(name: str, value: TensorLike) -> tuple[v1.Tensor, Buffer]:
    """Return the message of one input without its data, and the data, which is the array's own where it can be.

    Raises:
        TypeError: The value is no array of a dtype that predictd knows.
        ValueError: The value is ragged, or holds a string that is no text or too long.
    """
    if isinstance(value, BFloat16):
        dtype, array = v1.BF16, value.bits
    else:
        array = _as_array(name, value)
        dtype = _dtype_of(name, array)
    data = _join(name, array) if dtype == v1.BYTES else _raw(array, dtype)
    return v1.Tensor(name=name, dtype=dtype, shape=array.shape), data


def kind(name: str, value: TensorLike) -> tuple[str, tuple[int, ...]]:
    """What predictd calls the dtype of an input, and its shape. Raises as `describe` does."""
    if isinstance(value, BFloat16):
        return "BF16", value.bits.shape
    array = _as_array(name, value)
    return v1.DataType.Name(_dtype_of(name, array)), array.shape


def read(tensor: v1.Tensor, data: Buffer) -> Array:
    """Return the array of an output, from its message and its data.

    Raises:
        InternalError: The message contradicts itself.
    """
    shape = tuple(tensor.shape)
    if any(dimension < 0 for dimension in shape):
        raise InternalError(f"output {tensor.name!r} came with shape {list(shape)}")
    if tensor.dtype == v1.BYTES:
        return _shaped(tensor.name, _split(tensor.name, bytes(data), shape), shape)
    wire = _WIRE.get(tensor.dtype)
    if wire is None:
        raise InternalError(f"output {tensor.name!r} came with unknown dtype {int(tensor.dtype)}")
    expected_bytes = math.prod(shape) * wire.itemsize
    if len(data) != expected_bytes:
        raise InternalError(
            f"output {tensor.name!r} came with {len(data)} bytes where its shape {list(shape)} "
            f"and dtype {v1.DataType.Name(tensor.dtype)} need {expected_bytes}"
        )
    array = _shaped(tensor.name, np.frombuffer(data, dtype=wire), shape)
    return array.astype(wire.newbyteorder("="), copy=False)


def _shaped(name: str, flat: Array, shape: tuple[int, ...]) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError as error:
        # NumPy bounds the number of dimensions, and their product also where one of them is 0.
        raise InternalError(f"output {name!r} came with a shape that no array has: {error}") from error


def _as_array(name: str, value: npt.ArrayLike) -> Array:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        # A ragged list, or an object whose conversion failed (such as a tensor on a GPU).
        raise type(error)(f"input {name!r} is not an array: {error}") from error


def _dtype_of(name: str, array: Array) -> v1.DataType:
    if array.dtype.kind in _STRING_KINDS:
        return v1.BYTES
    dtype = _BY_NAME.get(array.dtype.name)
    if dtype is None:
        raise TypeError(
            f"input {name!r}: dtype {array.dtype} is not supported; "
            f"supported are {', '.join(_BY_NAME)} and strings"
        )
    return dtype


def _raw(array: Array, dtype: v1.DataType) -> memoryview:
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
    flat = np.ascontiguousarray(array, dtype=_WIRE[dtype]).reshape(-1)
    return flat.view(np.uint8).data


def _join(name: str, array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        if isinstance(element, str):
            data = _encode(name, element)
        elif isinstance(element, bytes):
            data = element
        else:
            raise TypeError(
                f"input {name!r}: an array of objects must hold str or bytes, not {type(element).__name__}"
            )
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"input {name!r}: a string is no text: {error}") from error


def _split(name: str, data: bytes, shape: tuple[int, ...]) -> Array:
    elements: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + _LENGTH.size
        # A cut-off length leaves `position` past the end, as a cut-off element does.
        position = start + (_LENGTH.unpack_from(data, position)[0] if start <= len(data) else 0)
        elements.append(data[start:position])
    count = math.prod(shape)
    if position != len(data) or len(elements) != count:
        raise InternalError(
            f"output {name!r} came with {len(data)} bytes "
            f"that are not the {count} strings of its shape {list(shape)}"
        )
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array
