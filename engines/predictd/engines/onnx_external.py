"""The files beside an ONNX model that hold its weights, found without loading it.

An ONNX file is one protobuf message of at most 2 GiB; the weights of a larger model, and often of a smaller one, lie in
other files, which its tensors name ("external data"). The walk below enters only messages that can hold tensors and
skips everything else, weights inside the file included.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_VARINT_BYTES_MAX = 10
# Of a path, of an offset: nothing longer can be either.
_TEXT_BYTES_MAX = 4096
# A graph that has more is left to the engine: reading so many takes seconds.
_FIELDS_MAX = 2_000_000
# Graphs in attributes of nodes of graphs: deeper than this no exporter goes.
_DEPTH_MAX = 64
_LOCATION_EXTERNAL = 1
_KEPT = 1024

# Messages by name, and the fields of each that lead to tensors (onnx.proto).
_INNER: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_KEY, _VALUE = 1, 2


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file that a model takes weights from.

    Attributes:
        location: As the model names it, relative to the model's folder.
        size_bytes: It is at least as long.
    """

    location: str
    size_bytes: int

    @property
    def outside(self) -> bool:
        """It is not in the model's folder."""
        path = PurePosixPath(self.location)
        return path.is_absolute() or os.path.normpath(self.location).split("/")[0] == ".."


def external_files(path: Path) -> tuple[ExternalFile, ...]:
    """The external files of an ONNX model, by location; none of a file that is no model.

    Raises:
        OSError: It cannot be read.
    """
    status = path.stat()
    return _read(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(_KEPT)
def _read(path: Path, _inode: int, size_bytes: int, _mtime_ns: int) -> tuple[ExternalFile, ...]:
    """Read a file once, until it changes: it is looked at every second."""
    sizes: dict[str, int] = {}
    with path.open("rb") as file:
        try:
            for found in _walk(_Reader(file), "model", size_bytes, 0):
                sizes[found.location] = max(found.size_bytes, sizes.get(found.location, 0))
        except _NoModelError:
            return ()
    return tuple(ExternalFile(location, sizes[location]) for location in sorted(sizes))


class _NoModelError(Exception):
    """What is read is no model."""


def _walk(file: _Reader, message: str, end: int, depth: int) -> Iterator[ExternalFile]:
    """What the tensors of a message name. The file stands at its beginning, and at its end afterwards."""
    if depth > _DEPTH_MAX:
        raise _NoModelError
    for number, value, field_end in _fields(file, end):
        inner = _INNER[message].get(number)
        if value is not None or inner is None:
            continue
        if inner != "tensor":
            yield from _walk(file, inner, field_end, depth + 1)
        elif (external := _tensor(file, field_end)) is not None:
            yield external


def _tensor(file: _Reader, end: int) -> ExternalFile | None:
    entries: dict[str, str] = {}
    external = False
    for number, value, field_end in _fields(file, end):
        if number == _DATA_LOCATION:
            external = value == _LOCATION_EXTERNAL
        elif number == _EXTERNAL_DATA and value is None:
            texts = {
                inner: _text(file, text_end)
                for inner, inner_value, text_end in _fields(file, field_end)
                if inner_value is None
            }
            entries[texts.get(_KEY, "")] = texts.get(_VALUE, "")
    if not external or not entries.get("location"):
        return None
    return ExternalFile(entries["location"], _number(entries, "offset") + _number(entries, "length"))


def _number(entries: Mapping[str, str], key: str) -> int:
    text = entries.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _text(file: _Reader, end: int) -> str:
    size = end - file.tell()
    if size > _TEXT_BYTES_MAX:
        raise _NoModelError
    return file.read(size).decode(errors="replace")


class _Reader:
    """A file, and how many fields may still be read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self.seek = file.read, file.tell, file.seek
        self._left = _FIELDS_MAX

    def next_field(self) -> int:
        """The key of the field that the file stands at."""
        self._left -= 1
        key = _varint(self)
        if self._left < 0 or key >> 3 == 0:
            raise _NoModelError
        return key


def _fields(file: _Reader, end: int) -> Iterator[tuple[int, int | None, int]]:
    """The fields of a message: number, the value of a varint, and where the field ends. What is not read is skipped."""
    while file.tell() < end:
        key = file.next_field()
        value, size = None, 0
        match key & 7:
            case 0:
                value = _varint(file)
            case 1:
                value, size = 0, 8
            case 2:
                size = _varint(file)
            case 5:
                value, size = 0, 4
            case _:
                raise _NoModelError
        field_end = file.tell() + size
        if field_end > end:
            raise _NoModelError
        yield key >> 3, value, field_end
        file.seek(field_end)


def _varint(file: _Reader) -> int:
    value = 0
    for at in range(_VARINT_BYTES_MAX):
        byte = file.read(1)
        if not byte:
            raise _NoModelError
        value |= (byte[0] & 0x7F) << (7 * at)
        if byte[0] < 0x80:
            return value
    raise _NoModelError
