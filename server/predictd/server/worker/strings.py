"""BYTES tensors between their wire form (uint32 length, bytes, ...) and arrays of `bytes` objects."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_LENGTH = struct.Struct("<I")


def decode_strings(data: memoryview, count: int) -> npt.NDArray[Any]:
    """Read `count` elements into a flat object array.

    Raises:
        ValueError: The data does not hold exactly that many elements.
    """
    if 4 * count > len(data):
        raise ValueError(f"{len(data)} bytes do not hold {count} elements")
    result = np.empty(count, object)
    at = 0
    for index in range(count):
        if at + 4 > len(data):
            raise ValueError(f"the data ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise ValueError(f"element {index} of {count} reaches beyond the data")
        result[index] = bytes(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow the last of {count} elements")
    return result


def encode_strings(elements: Iterable[Any]) -> tuple[bytes, list[int]]:
    """The wire form of elements (`bytes` or `str`) and the offset behind each of them, starting with 0."""
    out = bytearray()
    ends = [0]
    for element in elements:
        encoded = element if isinstance(element, bytes) else str(element).encode()
        out += _LENGTH.pack(len(encoded))
        out += encoded
        ends.append(len(out))
    return bytes(out), ends
