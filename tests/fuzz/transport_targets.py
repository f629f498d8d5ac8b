"""The readers of what other processes write: blocks, records, claims, messages of the control channel, answers."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from predictd.client import wire as client_wire
from predictd.engines.api import DType
from predictd.protos.v1 import predictd_pb2
from predictd.server.bench.hpack import HpackError, grpc_status
from predictd.server.control.channel import decode_message
from predictd.server.control.commands import CommandDone, LoadModel
from predictd.server.control.messages import Ping, WorkerGone
from predictd.server.frontend.answers import WorkerMemory, cut
from predictd.server.frontend.calls import held_slots
from predictd.server.transport.blocks import (
    OutputSize,
    encode_error,
    lay_out_request,
    lay_out_response,
    read_error,
    read_request,
)
from predictd.server.transport.claims import (
    CLAIMS_BYTES,
    claimed_lanes,
    claimed_tickets,
    completed_batches,
    read_claims,
    read_pulse,
)
from predictd.server.transport.records import TICKET, TICKET_STRUCT
from predictd.server.worker.strings import decode_strings
from tests.fixtures.frontend import lane, publication, view
from tests.fuzz.target import Target

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LANE = lane()


def _request_block() -> bytes:
    layout = lay_out_request(1, 2, [(DType.FP32, (2, 3), 24), None, (DType.BYTES, (2,), 11)])
    return layout.head + bytes(layout.size_bytes - len(layout.head))


def _response_blocks() -> Sequence[bytes]:
    sizes = [
        OutputSize(DType.FP32, (2, 2), 16, 8),
        OutputSize(DType.BYTES, (2,), 11, 0, 2),
        OutputSize(DType.INT64, (), 8, 0),
    ]
    blocks = []
    for outputs in (sizes, sizes[:1], sizes[1:2]):
        layout = lay_out_response(1, 2, outputs)
        blocks.append(layout.head + bytes(layout.size_bytes - len(layout.head)))
    return (*blocks, encode_error("the engine failed: é"))


def _read_request(data: bytes) -> None:
    block = memoryview(data)
    layout = read_request(block)
    for placed in layout.inputs:
        if placed.present:
            tensor = block[placed.offset : placed.offset + placed.nbytes]
            assert len(tensor) == placed.nbytes
            if placed.dtype is not DType.BYTES:
                np.frombuffer(tensor, np.uint8).view(placed.dtype.numpy).reshape(placed.shape)


def _read_response(data: bytes) -> None:
    block = memoryview(data)
    layout = WorkerMemory().layout(block)
    for output in layout.outputs:
        assert output.offset + output.nbytes <= len(block)
    if layout.outputs and layout.outputs[0].shape:
        for first, rows in ((0, 1), (1, 1), (0, layout.outputs[0].shape[0])):
            for tensor in cut(_LANE, block, layout, (0,), first, rows):
                assert len(tensor.data) <= len(block)


def _claims(data: bytes) -> None:
    with mmap.mmap(-1, CLAIMS_BYTES) as table:
        table[: len(data)] = data
        _, tickets = read_claims(table)
        assert len(tickets) == 64 * claimed_tickets(table)
        assert held_slots(tickets, 1) is not None
        assert claimed_lanes(table) is not None
        assert completed_batches(table) >= 0
        assert read_pulse(table).turns >= 0


def _tickets(data: bytes) -> None:
    records = np.frombuffer(data[: len(data) // 64 * 64], TICKET)
    assert len(held_slots(records.tobytes(), 1)) <= len(records)


def _strings(data: bytes) -> None:
    for count in (0, 1, 2, 2**40):
        try:
            assert len(decode_strings(memoryview(data), count)) == count
        except ValueError:
            continue


def _control_messages() -> Sequence[bytes]:
    messages = (
        Ping(),
        WorkerGone(worker=7, pool=1, dead=True),
        LoadModel(seq=1, model="m", config="{}"),
        CommandDone(seq=1, status="", message=""),
        publication(view(), labels={"stable": 1}),
    )
    return [msgspec.msgpack.encode(message, enc_hook=str) for message in messages]


def _answers() -> Sequence[bytes]:
    small = predictd_pb2.PredictResponse(id="7", model="m", version=1)
    small.outputs.add(name="y", dtype=predictd_pb2.FP32, shape=[1, 2], data=bytes(8))
    messages: Sequence[Message] = (small, predictd_pb2.PredictStreamResponse(id="7", response=small))
    return [message.SerializeToString() for message in messages]


# A field that no message has.
_PADDING = b"\xa2\x06\x80\x80\x04" + bytes(65536)


def _read_answer(data: bytes) -> None:
    for read in (client_wire.answer, client_wire.streamed):
        # What is larger is read by hand.
        for message in (data, data + _PADDING):
            try:
                read(message)
            except (ValueError, DecodeError):
                continue


_TICKET = struct.pack(TICKET_STRUCT, 1, 2, 11, 2, 2**60, 300, 0, 0, 0, 5, 1, 3, 10**9, 2**63 - 1)

TARGETS = (
    Target("request_block", _read_request, [_request_block()], (ValueError,)),
    Target("response_block", _read_response, _response_blocks(), (ValueError,)),
    Target("error_block", lambda data: read_error(memoryview(data)), _response_blocks(), (ValueError,)),
    Target("claims", _claims, [struct.pack("<IIII", 2, 0, 2, 9) + bytes(48) + 2 * _TICKET], ()),
    Target("tickets", _tickets, [3 * _TICKET], ()),
    Target("strings", _strings, [b"\x03\0\0\0one\0\0\0\0"], ()),
    Target("control_channel", decode_message, _control_messages(), (ValueError,)),
    Target("client_answer", _read_answer, _answers(), ()),
    Target(
        "trailers",
        grpc_status,
        [b"\x88\x40\x0bgrpc-status\x010\x00\x0cgrpc-message\x00", b"\x40\x0bgrpc-status\x0214"],
        (HpackError,),
    ),
)
