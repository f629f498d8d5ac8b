"""What a request's message may hold, checked in its bytes before it is parsed.

A parser takes more memory than it is given bytes: an empty message in a list has two bytes on the wire and a hundred
parsed, a small number one and eight. So the largest message that is received says nothing of what becomes of it. Here
the fields are counted, at a fraction of a microsecond each, without anything being made of them.

Whatever is wrong with the bytes themselves is left to the parser, which stops where this walk does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.varint import read_varint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

# What a smaller message becomes is not worth a look: some hundred bytes for two of its own.
CHECKED_BYTES: Final = 16 * 1024
# What NumPy can hold. Products over longer shapes are numbers whose size is quadratic to compute.
RANK_MAX: Final = 64
# The same as protobuf's readers have.
DEPTH_MAX: Final = 100
_SHOWN_DIMENSIONS: Final = 8

_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What a message may hold.

    Attributes:
        top_fields: Fields of the message itself, such as inputs; repeated ones count each time.
        fields: Those of the messages in it, too.
        text_bytes: Of a string, which is a name, a label or an id. Tensors are bytes.
        list_bytes: Of all lists of numbers together, as they are held once parsed; as much as the message has, if
            that is more.
    """

    top_fields: int = 4096
    fields: int = 2**20
    text_bytes: int = 2**20
    list_bytes: int = 2**28


LIMITS: Final = MessageLimits()


@dataclass(slots=True)
class _Kind:
    """What the walk knows of a message: its fields with a length, by number.

    Attributes:
        messages: Those that are messages.
        texts: Those that are strings.
        lists: Those that are lists of varints, and the bytes of an element once parsed.
    """

    messages: dict[int, _Kind]
    texts: frozenset[int]
    lists: Mapping[int, int]


_UNKNOWN = _Kind({}, frozenset(), {})
_ELEMENT_BYTES: Mapping[int, int] = {
    FieldDescriptor.CPPTYPE_BOOL: 1,
    FieldDescriptor.CPPTYPE_INT32: 4,
    FieldDescriptor.CPPTYPE_UINT32: 4,
    FieldDescriptor.CPPTYPE_ENUM: 4,
    FieldDescriptor.CPPTYPE_INT64: 8,
    FieldDescriptor.CPPTYPE_UINT64: 8,
}


@cache
def _kind(message: type[Message]) -> _Kind:
    kinds: dict[str, _Kind] = {}

    # Any: a Descriptor, of which there are several implementations.
    def of(one: Any) -> _Kind:
        if one.full_name in kinds:
            return kinds[one.full_name]
        kind = kinds[one.full_name] = _Kind({}, frozenset(), {})
        kind.texts = frozenset(f.number for f in one.fields if f.type == FieldDescriptor.TYPE_STRING)
        kind.lists = {
            f.number: _ELEMENT_BYTES[f.cpp_type]
            for f in one.fields
            if f.is_repeated and f.cpp_type in _ELEMENT_BYTES
        }
        for field in one.fields:
            if field.message_type is not None:
                kind.messages[field.number] = of(field.message_type)
        return kind

    return of(message.DESCRIPTOR)


def check_message(data: bytes, kind: type[Message], limits: MessageLimits = LIMITS) -> None:
    """Refuse a message of which too much would become.

    Args:
        data: It.
        kind: What it shall be.
        limits: What it may hold.

    Raises:
        InvalidRequestError: It holds more; says of what.
    """
    if len(data) >= CHECKED_BYTES:
        # mypy calls the parser's classes unhashable.
        _Walk(data, limits).walk(_kind(kind))  # type: ignore[arg-type]


class _Walk:
    """One walk over one message."""

    def __init__(self, data: bytes, limits: MessageLimits) -> None:
        self._data = data
        self._limits = limits
        self._list_bytes_max = max(len(data), limits.list_bytes)
        self._list_bytes = 0

    def walk(self, kind: _Kind) -> None:  # noqa: C901, PLR0911, PLR0912 - one case a wire type, in a loop that has to be quick
        data, limits = self._data, self._limits
        at, end = 0, len(data)
        # What is gone on with once the message in hand, or the group, is over.
        around: list[tuple[_Kind, int]] = []
        count = 0
        left = limits.top_fields
        while True:
            while at == end and around:
                kind, end = around.pop()
            if at >= end:
                return
            count += 1
            if not around:
                left -= 1
                if left < 0:
                    raise _too_many(limits.top_fields, " of its own")
            if count > limits.fields:
                raise _too_many(limits.fields)
            tag, at = read_varint(data, at, end)
            wire = tag & 7
            if at < 0 or wire > _FIXED32:
                return
            if not tag >> 3:
                return
            if wire == _VARINT:
                _, at = read_varint(data, at, end)
            elif wire == _LENGTH:
                size, at = read_varint(data, at, end)
                if at < 0 or size > end - at:
                    return
                inner = kind.messages.get(tag >> 3)
                if inner is not None:
                    if len(around) >= DEPTH_MAX:
                        return
                    around.append((kind, end))
                    kind, end = inner, at + size
                    continue
                self._value(kind, tag >> 3, at, size)
                at += size
            elif wire == _GROUP:
                if len(around) >= DEPTH_MAX:
                    return
                around.append((kind, end))
                kind = _UNKNOWN
            elif wire == _GROUP_END:
                if not around:
                    return
                kind, end = around.pop()
            else:
                at += 8 if wire == _FIXED64 else 4
            if not 0 <= at <= end:
                return

    def _value(self, kind: _Kind, number: int, at: int, size: int) -> None:
        if number in kind.texts:
            if size > self._limits.text_bytes:
                raise InvalidRequestError(
                    f"the request has a string of {size} bytes; it may have {self._limits.text_bytes}"
                )
            return
        element_bytes = kind.lists.get(number)
        if element_bytes is None:
            return
        if self._list_bytes + size * element_bytes > self._list_bytes_max:
            # Each number ends with the first byte below 128, and most may have several.
            size = int(np.count_nonzero(np.frombuffer(self._data, np.uint8, size, at) < 0x80))
        self._list_bytes += size * element_bytes
        if self._list_bytes > self._list_bytes_max:
            raise InvalidRequestError(
                f"the request has lists of numbers that take more than {self._list_bytes_max} bytes; "
                "send tensors in their raw form"
            )


def shown_shape(shape: Sequence[int]) -> str:
    """A shape for a message, cut where it is too long."""
    shown = ", ".join(map(str, shape[:_SHOWN_DIMENSIONS]))
    return f"[{shown}]" if len(shape) <= _SHOWN_DIMENSIONS else f"[{shown}, … {len(shape)} dimensions]"


def _too_many(limit: int, where: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"the request has more than {limit} fields{where}")
