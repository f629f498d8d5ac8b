"""Protocol buffers by hand, where the library would copy: large tensors, and messages that it does not know.

A tensor's bytes are the caller's own until they are joined into the message, and an output is a view of the message
that arrived. The rest of a message goes through the generated code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.protos.v1 import predictd_pb2 as v1

if TYPE_CHECKING:
    from collections.abc import Iterator

Buffer = bytes | memoryview
Parts = tuple[Buffer, ...]

# Below this the generated code is faster than what it copies costs.
LARGE_BYTES = 64 * 1024
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INPUTS, _REQUEST_ID = 5, 4
_OUTPUTS, _RESPONSE, _DATA = 4, 2, 4
# google.rpc.Status, google.protobuf.Any, google.rpc.RetryInfo and google.protobuf.Duration.
_STATUS_DETAILS, _ANY_TYPE, _ANY_VALUE, _RETRY_DELAY, _SECONDS = 3, 1, 2, 1, 1


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: As the .proto file has it.
        begin: Where its tag starts.
        value: Where its value starts.
        end: Where it ends.
        varint: Its value, of a field that is one number; else 0.
    """

    number: int
    begin: int
    value: int
    end: int
    varint: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A PredictResponse.

    Attributes:
        message: The response; of a large one, without the data of its outputs.
        data: The data of each output.
    """

    message: v1.PredictResponse
    data: tuple[Buffer, ...]


def fields(data: memoryview, begin: int, end: int) -> Iterator[Field]:
    """The fields between two places of a message. Raises ValueError where there is no message."""
    while begin < end:
        tag, value = _read_varint(data, begin, end)
        kind, number = tag & 7, 0
        if kind == _VARINT:
            number, after = _read_varint(data, value, end)
        elif kind == _BYTES:
            length, value = _read_varint(data, value, end)
            after = value + length
        elif kind in {_FIXED64, _FIXED32}:
            after = value + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind} at byte {begin}")
        if tag < 1 << 3:
            raise ValueError(f"a field without a number at byte {begin}")
        if after > end:
            raise ValueError(f"the field at byte {begin} ends behind its message")
        yield Field(tag >> 3, begin, value, after, number)
        begin = after


def request_parts(head: v1.PredictRequest, tensors: list[tuple[v1.Tensor, Buffer]]) -> Parts:
    """The parts of a request: all of it but its inputs, and those, each with its data beside it."""
    parts: list[Buffer] = [head.SerializeToString()]
    for tensor, data in tensors:
        size = len(data)
        header = tensor.SerializeToString() + _tag(_DATA) + _varint(size)
        parts += (_tag(_INPUTS) + _varint(len(header) + size) + header, data)
    return tuple(parts)


def with_id(parts: Parts, request_id: str) -> bytes:
    """The message of a request whose id becomes this one: of a field that comes twice, the last counts."""
    encoded = request_id.encode()
    return b"".join((*parts, _tag(_REQUEST_ID), _varint(len(encoded)), encoded))


def join(parts: Parts) -> bytes:
    """The message of a request."""
    return b"".join(parts)


def answer(data: bytes) -> Answer:
    """Read a PredictResponse. Raises ValueError if it is none."""
    if len(data) < LARGE_BYTES:
        return small_answer(v1.PredictResponse.FromString(data))
    return _large_answer(memoryview(data), 0, len(data))


def small_answer(message: v1.PredictResponse) -> Answer:
    """The answer of a message that was read as a whole."""
    return Answer(message, tuple(tensor.data for tensor in message.outputs))


def streamed(data: bytes) -> tuple[v1.PredictStreamResponse, Answer | None]:
    """Read a PredictStreamResponse: the message, and the answer in it unless it is an error."""
    if len(data) < LARGE_BYTES:
        message = v1.PredictStreamResponse.FromString(data)
        is_answer = message.WhichOneof("result") == "response"
        return message, small_answer(message.response) if is_answer else None
    view = memoryview(data)
    found: Answer | None = None
    rest: list[memoryview] = []
    for field in fields(view, 0, len(view)):
        if field.number == _RESPONSE:
            found = _large_answer(view, field.value, field.end)
        else:
            rest.append(view[field.begin : field.end])
    return v1.PredictStreamResponse.FromString(b"".join(rest)), found


def retry_delay_seconds(status: bytes) -> float | None:
    """The wait of the RetryInfo in a google.rpc.Status; None if it has none or is none."""
    view = memoryview(status)
    try:
        for detail in _within(view, 0, len(view), _STATUS_DETAILS):
            (kind,) = _within(view, detail.value, detail.end, _ANY_TYPE)
            if bytes(view[kind.value : kind.end]).endswith(b"/google.rpc.RetryInfo"):
                return _retry_info_seconds(view, detail)
    except ValueError:
        return None
    return None


def _retry_info_seconds(view: memoryview, detail: Field) -> float:
    seconds = 0.0
    for info in _within(view, detail.value, detail.end, _ANY_VALUE):
        for delay in _within(view, info.value, info.end, _RETRY_DELAY):
            for part in fields(view, delay.value, delay.end):
                seconds += part.varint / (1 if part.number == _SECONDS else 10**9)
    return seconds


def _within(view: memoryview, begin: int, end: int, number: int) -> Iterator[Field]:
    return (field for field in fields(view, begin, end) if field.number == number)


def _large_answer(view: memoryview, begin: int, end: int) -> Answer:
    rest: list[memoryview] = []
    outputs: list[v1.Tensor] = []
    data: list[Buffer] = []
    for field in fields(view, begin, end):
        if field.number == _OUTPUTS:
            tensor, payload = _tensor(view, field)
            outputs.append(tensor)
            data.append(payload)
        else:
            rest.append(view[field.begin : field.end])
    message = v1.PredictResponse.FromString(b"".join(rest))
    message.outputs.extend(outputs)
    return Answer(message, tuple(data))


def _tensor(view: memoryview, within: Field) -> tuple[v1.Tensor, memoryview]:
    payload = view[:0]
    rest: list[memoryview] = []
    for field in fields(view, within.value, within.end):
        if field.number == _DATA:
            payload = view[field.value : field.end]
        else:
            rest.append(view[field.begin : field.end])
    return v1.Tensor.FromString(b"".join(rest)), payload


def _tag(number: int) -> bytes:
    return bytes((number << 3 | _BYTES,))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError(f"a number at byte {place} does not end")
