"""The fields of an encoded protobuf message: what is read of a model file without the `onnx` package."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Span(NamedTuple):
    """Where a message, string or bytes field stands."""

    start: int
    end: int


def find(data: mmap.mmap, message: Span, number: int) -> Iterator[Span]:
    """The length-delimited fields of this number in a message."""
    position = message.start
    while position < message.end:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _BYTES:
            size, position = _varint(data, position)
            if key >> 3 == number:
                yield Span(position, position + size)
            position += size
        elif kind == _VARINT:
            _, position = _varint(data, position)
        else:
            position += {_FIXED64: 8, _FIXED32: 4}[kind]


def text(data: mmap.mmap, message: Span, number: int) -> str:
    """The string field of this number, empty when it is not there."""
    return "".join(data[span.start : span.end].decode() for span in find(data, message, number))


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
