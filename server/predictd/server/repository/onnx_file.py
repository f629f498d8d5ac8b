"""Whether a file can be an ONNX model, told without loading it.

An ONNX file is one protobuf message, a ModelProto, and nearly all of it is a single field, the graph. The
walk reads the header of each top-level field and skips its content, so that a file of any size takes a few
reads, and one whose copy was interrupted shows: its last field promises more than there is.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from predictd.server.repository.file_error import ModelFileError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7
# ModelProto's fields and their wire types; others may follow in later versions of ONNX.
_WIRE_TYPES = {
    1: _VARINT,
    2: _BYTES,
    3: _BYTES,
    4: _BYTES,
    5: _VARINT,
    6: _BYTES,
    _GRAPH: _BYTES,
    8: _BYTES,
    14: _BYTES,
    20: _BYTES,
    25: _BYTES,
    26: _BYTES,
}
# A model of this many functions and properties is left to the engine.
_MOST_FIELDS = 100_000
_LONGEST_VARINT = 10
_LFS_POINTER = b"version https://git-lfs"


def check_onnx_file(file: BinaryIO) -> None:
    """Raise ModelFileError unless this can be an ONNX model.

    Args:
        file: Open for reading, at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise ModelFileError("an empty file", "copy the model again")
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
        raise ModelFileError("a pointer of Git LFS, not the model", "fetch the model with git lfs pull")
    file.seek(0)
    numbers: set[int] = set()
    for _ in range(_MOST_FIELDS):
        if file.tell() == size:
            break
        numbers.add(_skip_field(file, size))
        # Nearly anything can be read as fields, but hardly as ours.
        if not numbers & _WIRE_TYPES.keys():
            raise _no_model()
    else:
        return
    if _GRAPH not in numbers:
        raise _no_model()


def _skip_field(file: BinaryIO, size: int) -> int:
    key = _varint(file, size)
    number, wire_type = key >> 3, key & 7
    if number == 0 or _WIRE_TYPES.get(number, wire_type) != wire_type:
        raise _no_model()
    if wire_type == _VARINT:
        _varint(file, size)
        return number
    if wire_type not in (_FIXED64, _BYTES, _FIXED32):
        raise _no_model()
    length = {_FIXED64: 8, _FIXED32: 4}.get(wire_type) or (_varint(file, size) if wire_type == _BYTES else 0)
    end = file.tell() + length
    if end > size:
        raise ModelFileError(f"cut short: {size} of at least {end} bytes are there", "copy the model again")
    file.seek(end)
    return number


def _varint(file: BinaryIO, size: int) -> int:
    value = 0
    for at in range(_LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            raise ModelFileError(f"cut short after {size} bytes", "copy the model again")
        value |= (byte[0] & 0x7F) << (7 * at)
        if byte[0] < 0x80:
            return value
    raise _no_model()


def _no_model() -> ModelFileError:
    return ModelFileError("not an ONNX model", "export the model to ONNX, or name the engine that loads this")
