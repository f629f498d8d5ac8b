"""The fields of an encoded protocol buffer message, found without parsing it, and written without a message.

A request is mostly tensors, which are skipped by their length here: the cost is that of the few fields around them,
where parsing copies every byte. So are answers, whose tensors are joined to the other fields with one copy: the
library's own encoder grows its memory as it goes, which takes 0.8 ms for 600 KB instead of 0.01.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from predictd.server.frontend.varint import encode_varint, read_varint

VARINT = 0
LENGTH = 2

_FIXED_BYTES = {1: 8, 5: 4}
_TAG_MAX = 2**32 - 1
_PREFIXES_KEPT = 1024
# A message of so many fields is left to the parser: a walk in Python would hold up everybody else.
FIELDS_MAX = 256


class ScanError(ValueError):
    """The bytes are no message, or one that is not worth the walk."""


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message in their order, repeated ones each time.

    Args:
        data: Where the message is.
        start: Its first byte.
        end: The byte after its last one.

    Yields:
        Number, wire type, for VARINT the value and 0, for LENGTH the first byte and the one after the last, and where
        the field begins. Fields of other types are passed over.

    Raises:
        ScanError: There is no message, or it has groups, or more than FIELDS_MAX fields.
    """
    at = start
    for _ in range(FIELDS_MAX):
        if at == end:
            return
        begin = at
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if tag > _TAG_MAX or not number:
            raise ScanError("a tag that no field has")
        if kind == VARINT:
            value, at = _varint(data, at, end)
            yield number, kind, value, 0, begin
        elif kind == LENGTH:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise ScanError("a field that reaches beyond the message")
            yield number, kind, at, at + size, begin
            at += size
        else:
            at += _FIXED_BYTES.get(kind, end)
            if at > end:
                raise ScanError("a group, or a field that reaches beyond the message")
    if at != end:
        raise ScanError("too many fields")


def text(data: bytes, start: int, end: int) -> str:
    """A field as a string. Raises ScanError if it is none."""
    try:
        return data[start:end].decode()
    except UnicodeDecodeError:
        raise ScanError("a string that is not UTF-8") from None


def signed(value: int) -> int:
    """A varint as an int64."""
    return value - 2**64 if value >> 63 else value


@lru_cache(_PREFIXES_KEPT)
def length_prefix(number: int, size_bytes: int) -> bytes:
    """What stands before the bytes of a LENGTH field."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(size_bytes)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value, at = read_varint(data, at, end)
    if at < 0:
        raise ScanError("a number without an end")
    return value, at
