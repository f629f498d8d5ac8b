"""Which inputs of a model file declare no shape at all.

ONNX Runtime reports an unknown rank and a scalar both as `[]`. The file tells them apart, and these few
fields of its protobuf encoding are all that is read, so that the daemon needs no `onnx` package.

    ModelProto.graph = 7 · GraphProto.input = 11 · ValueInfoProto.name = 1, .type = 2
    TypeProto.tensor_type = 1 · TypeProto.Tensor.shape = 2
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Span(NamedTuple):
    start: int
    end: int


def unranked_inputs(path: Path) -> frozenset[str]:
    """Names of the tensor inputs without a shape. The file must be a valid ONNX model."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        whole = _Span(0, len(data))
        values = [value for graph in _find(data, whole, 7) for value in _find(data, graph, 11)]
        return frozenset(_name(data, value) for value in values if not _has_shape(data, value))


def _name(data: mmap.mmap, value: _Span) -> str:
    return "".join(data[span.start : span.end].decode() for span in _find(data, value, 1))


def _has_shape(data: mmap.mmap, value: _Span) -> bool:
    tensors = (tensor for kind in _find(data, value, 2) for tensor in _find(data, kind, 1))
    return any(True for tensor in tensors for _ in _find(data, tensor, 2))


def _find(data: mmap.mmap, message: _Span, number: int) -> Iterator[_Span]:
    """The length-delimited fields of this number in a message."""
    position = message.start
    while position < message.end:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _BYTES:
            size, position = _varint(data, position)
            if key >> 3 == number:
                yield _Span(position, position + size)
            position += size
        elif kind == _VARINT:
            _, position = _varint(data, position)
        else:
            position += {_FIXED64: 8, _FIXED32: 4}[kind]


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
