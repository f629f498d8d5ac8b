"""What a request is for, read from its bytes without parsing its tensors, in each of the three protocols.

What comes out is what the protocol's decoder would find, or nothing: then the decoder says what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.oip_inference import version_number
from predictd.server.frontend.apis.wire import LENGTH, VARINT, ScanError, fields, signed, text
from predictd.server.frontend.heading import Heading

if TYPE_CHECKING:
    from collections.abc import Callable


def predictd_v1(data: bytes) -> Heading | None:
    """The heading of a PredictRequest of predictd.v1."""
    return _read(_predictd_v1, data)


def oip(data: bytes) -> Heading | None:
    """The heading of a ModelInferRequest."""
    return _read(_oip, data)


def tfs(data: bytes) -> Heading | None:
    """The heading of a request to TensorFlow Serving: all begin with a ModelSpec."""
    return _read(_tfs, data)


def _read(read: Callable[[bytes], Heading], data: bytes) -> Heading | None:
    try:
        heading = read(data)
    except (ScanError, InvalidRequestError):
        return None
    return heading if heading.model else None


def _predictd_v1(data: bytes) -> Heading:
    model, version, label, request_id, priority, size_bytes = "", None, None, "", 0, 0
    for number, kind, first, end, _ in fields(data, 0, len(data)):
        if (number, kind) == (1, LENGTH):
            model = text(data, first, end)
        elif (number, kind) == (2, VARINT):
            version, label = signed(first), None
        elif (number, kind) == (3, LENGTH):
            version, label = None, text(data, first, end)
        elif (number, kind) == (4, LENGTH):
            request_id = text(data, first, end)
        elif (number, kind) == (5, LENGTH):
            size_bytes += _last_length(data, first, end, 4)
        elif (number, kind) == (7, VARINT):
            priority = first & 0xFFFFFFFF
    return Heading(model, version, label, priority, size_bytes, request_id)


def _oip(data: bytes) -> Heading:
    model, version, request_id, size_bytes = "", "", "", 0
    priority: int | None = 0
    for number, kind, first, end, _ in fields(data, 0, len(data)):
        if kind != LENGTH:
            continue
        if number == 1:
            model = text(data, first, end)
        elif number == 2:
            version = text(data, first, end)
        elif number == 3:
            request_id = text(data, first, end)
        elif number == 4 and data.find(b"priority", first, end) >= 0:
            priority = None
        elif number == 7:
            size_bytes += end - first
    return Heading(model, version_number(version), None, priority, size_bytes, request_id)


def _tfs(data: bytes) -> Heading:
    model, version, label = "", None, None
    for number, kind, start, stop, _ in fields(data, 0, len(data)):
        if (number, kind) != (1, LENGTH):
            continue
        # Pieces of one ModelSpec that come apart are one.
        for inner, inner_kind, first, end, _ in fields(data, start, stop):
            if (inner, inner_kind) == (1, LENGTH):
                model = text(data, first, end)
            elif (inner, inner_kind) == (2, LENGTH):
                version, label = _last_varint(data, first, end, 1, version or 0), None
            elif (inner, inner_kind) == (4, LENGTH):
                version, label = None, text(data, first, end)
    # As the decoder has it: the number 0 is no version's.
    return Heading(model, version or None, label)


def _last_length(data: bytes, start: int, end: int, wanted: int) -> int:
    size = 0
    for number, kind, first, last, _ in fields(data, start, end):
        if (number, kind) == (wanted, LENGTH):
            size = last - first
    return size


def _last_varint(data: bytes, start: int, end: int, wanted: int, before: int) -> int:
    value = before
    for number, kind, first, _, _ in fields(data, start, end):
        if (number, kind) == (wanted, VARINT):
            value = signed(first)
    return value
