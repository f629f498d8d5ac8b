"""Large requests without copies of their tensors: cut out of the bytes, so that the library parses only the rest.

The library's parser copies each tensor into its own memory, and once more when it is read. What is cut out here stays
where gRPC has put it, until it is written into shared memory. All else is still decided by the library: what is left of
the message is a message of the same type with as many tensors, each without its data.
"""

from __future__ import annotations

from dataclasses import dataclass

from predictd.server.frontend.apis.wire import LENGTH, ScanError, fields, length_prefix
from predictd.server.frontend.inference import Buffer

# Of a smaller request the copies cost less than the walk.
CUT_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Cut:
    """A message in two parts.

    Attributes:
        rest: All of it but the payloads.
        payloads: In the order of the message, one for each of the repeated fields that have them.
    """

    rest: bytes
    payloads: list[Buffer]


def cut(data: bytes, number: int, inner: int = 0) -> Cut | None:
    """Cut payloads out of a message; None where it is not worth it, or has to be refused.

    Args:
        data: The message.
        number: The repeated field that is a payload, or a message with one.
        inner: The payload's number in that message; 0 if the field itself is the payload.
    """
    if len(data) < CUT_BYTES:
        return None
    try:
        found = _cut(data, number, inner)
    except ScanError:
        return None
    return found if found.payloads else None


def _cut(data: bytes, number: int, inner: int) -> Cut:
    view = memoryview(data)
    rest: list[Buffer] = []
    payloads: list[Buffer] = []
    done = 0
    for field, kind, first, end, begin in fields(data, 0, len(data)):
        if field != number or kind != LENGTH:
            continue
        rest.append(view[done:begin])
        done = end
        if inner:
            others, payload = _inside(data, view, first, end, inner)
            rest += (length_prefix(number, len(others)), others)
        else:
            payload = view[first:end]
        payloads.append(payload)
    rest.append(view[done:])
    return Cut(b"".join(rest), payloads)


def _inside(data: bytes, view: memoryview, start: int, end: int, inner: int) -> tuple[bytes, memoryview]:
    """A message without its payload, and the payload: of a field that comes twice, the last counts."""
    rest: list[Buffer] = []
    payload = view[:0]
    done = start
    for field, kind, first, stop, begin in fields(data, start, end):
        if field == inner and kind == LENGTH:
            rest.append(view[done:begin])
            done, payload = stop, view[first:stop]
    rest.append(view[done:end])
    return b"".join(rest), payload
