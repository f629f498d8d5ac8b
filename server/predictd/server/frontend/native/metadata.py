"""Metadata of calls as the C half passes them: fields of a length and bytes, names and values by turns."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_LENGTH = struct.Struct("=I")
_BINARY = "-bin"
ENCODING = "grpc-encoding"


def pack(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Metadata as fields, as they go over the wire."""
    parts: list[bytes] = []
    for name, value in metadata:
        plain = value.encode() if isinstance(value, str) else value
        if name.endswith(_BINARY):
            plain = base64.b64encode(plain).rstrip(b"=")
        key = name.encode()
        parts += (_LENGTH.pack(len(key)), key, _LENGTH.pack(len(plain)), plain)
    return b"".join(parts)


def unpack(fields: bytes) -> Metadata:
    """What a client sent. Binary values that are none are left out."""
    found: list[tuple[str, str | bytes]] = []
    parts = each(fields)
    for key in parts:
        value = next(parts)
        name = key.decode("ascii", errors="replace")
        if name == ENCODING:
            continue
        if not name.endswith(_BINARY):
            found.append((name, value.decode(errors="replace")))
            continue
        # Several values of one name may come as one.
        decoded = (_decoded(part) for part in value.split(b","))
        found.extend((name, plain) for plain in decoded if plain is not None)
    return tuple(found)


def encoding(fields: bytes) -> str:
    """How the messages of a call are compressed that say that they are."""
    parts = each(fields)
    for key in parts:
        value = next(parts)
        if key == ENCODING.encode():
            return value.decode("ascii", errors="replace")
    return "identity"


def values(fields: bytes, name: bytes) -> list[bytes]:
    """The values of a name."""
    parts = each(fields)
    return [value for key, value in zip(parts, parts, strict=True) if key == name]


def grouped(fields: bytes) -> dict[str, list[bytes]]:
    """The values of each name."""
    found: dict[str, list[bytes]] = {}
    parts = each(fields)
    for key in parts:
        found.setdefault(key.decode(), []).append(next(parts))
    return found


def each(fields: bytes) -> Iterator[bytes]:
    """The fields, names and values alike."""
    place = 0
    while place < len(fields):
        (length,) = _LENGTH.unpack_from(fields, place)
        place += _LENGTH.size
        yield fields[place : place + length]
        place += length


def _decoded(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return None
