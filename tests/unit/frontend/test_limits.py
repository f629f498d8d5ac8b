"""What a message would become is known before it is parsed."""

from __future__ import annotations

import tracemalloc

import pytest
from google.protobuf.message import Message

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.tfs import serving_pb2 as tfs_pb
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis import oip_inference, predictd_v1
from predictd.server.frontend.apis.rpc import parse
from predictd.server.frontend.limits import CHECKED_BYTES, LIMITS, MessageLimits, check_message, shown_shape

SMALL = MessageLimits(top_fields=50, fields=1000, text_bytes=1000, list_bytes=CHECKED_BYTES)
MIB = 2**20


def tensor_request(inputs: int = 1, outputs: int = 0) -> bytes:
    message = oip_pb.ModelInferRequest(model_name="m")
    for at in range(inputs):
        message.inputs.add(name=f"x{at}", datatype="FP32", shape=[1, CHECKED_BYTES])
        message.raw_input_contents.append(bytes(CHECKED_BYTES))
    for at in range(outputs):
        message.outputs.add(name=f"y{at}")
    return message.SerializeToString()


def typed(values: int, value: int = 1) -> bytes:
    message = oip_pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="INT64", shape=[values]).contents.int64_contents.extend(
        [value] * values
    )
    return message.SerializeToString()


def strings(values: int) -> bytes:
    message = oip_pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[values])
    tensor.contents.bytes_contents.extend([b"some text of a row"] * values)
    return message.SerializeToString()


def classification(examples: int) -> bytes:
    message = tfs_pb.ClassificationRequest()
    for _ in range(examples):
        message.input.example_list.examples.add()
    return message.SerializeToString()


def unknown_groups(depth: int) -> bytes:
    return b"\xa3\x06" * depth + b"\xa0\x06\x01" + b"\xa4\x06" * depth


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (oip_pb.ModelInferRequest, b""),
        (oip_pb.ModelInferRequest, tensor_request(20, 9)),
        (oip_pb.ModelInferRequest, typed(2000)),
        (oip_pb.ModelInferRequest, strings(900)),
        (oip_pb.ModelInferRequest, tensor_request() + unknown_groups(90)),
        (pb.PredictRequest, pb.PredictRequest(inputs=[pb.Tensor(data=bytes(99_999))]).SerializeToString()),
        (pb.PredictRequest, pb.PredictRequest(id="i" * 999, outputs=["y" * 999] * 40).SerializeToString()),
    ],
)
def test_what_is_within_the_limits_passes_and_is_parsed(kind: type[Message], data: bytes) -> None:
    check_message(data, kind, SMALL)
    assert parse(kind, data).ByteSize() >= 0


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (oip_pb.ModelInferRequest, tensor_request(20, 11), "more than 50 fields of its own"),
        (oip_pb.ModelInferRequest, b"\x2a\x00" * CHECKED_BYTES, "more than 50 fields of its own"),
        (oip_pb.ModelInferRequest, strings(1001), "more than 1000 fields"),
        # Every element of the list has one byte, and eight once it is parsed.
        (oip_pb.ModelInferRequest, typed(CHECKED_BYTES), "lists of numbers that take more than"),
        (oip_pb.ModelInferRequest, tensor_request() + unknown_groups(60) * 20, "more than 1000 fields"),
        (
            pb.PredictRequest,
            pb.PredictRequest(model="m" * CHECKED_BYTES).SerializeToString(),
            "a string of 16384 bytes; it may have 1000",
        ),
        (
            tfs_pb.ClassificationRequest,
            classification(9000),
            "more than 1000 fields",
        ),
    ],
)
def test_what_is_beyond_is_refused_in_words(kind: type[Message], data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_message(data, kind, SMALL)


def test_large_numbers_take_no_more_parsed_than_they_do_as_they_come() -> None:
    """Nine bytes each on their way, eight afterwards: the list may be as long as the message."""
    check_message(typed(CHECKED_BYTES, 2**62), oip_pb.ModelInferRequest, SMALL)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * CHECKED_BYTES,
        b"\x0f" * CHECKED_BYTES,
        b"\x0a\xff\xff\xff\x7f" + bytes(CHECKED_BYTES),
        b"\x0a\x01x" + bytes(CHECKED_BYTES),
        b"\xa3\x06" * CHECKED_BYTES,
        b"\x0d\x01\x01\x01\x01" * 40 + b"\x0d" + b"\xa4\x06" * CHECKED_BYTES,
    ],
)
def test_what_is_no_message_is_left_to_the_parser(data: bytes) -> None:
    check_message(data, oip_pb.ModelInferRequest)
    with pytest.raises(InvalidRequestError, match="not a valid"):
        parse(oip_pb.ModelInferRequest, data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (oip_pb.ModelInferRequest, b"\x2a\x00" * 8 * MIB),
        (oip_pb.ModelInferRequest, b"\x32\x00" * 8 * MIB),
        (pb.PredictRequest, b"\x2a\x00" * 8 * MIB),
        (tfs_pb.PredictRequest, b"\x12\x00" * 8 * MIB),
        (tfs_pb.PredictRequest, b"\x1a\x00" * 8 * MIB),
    ],
)
def test_a_message_of_nothing_but_empty_messages_costs_no_memory(kind: type[Message], data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match=f"more than {LIMITS.top_fields} fields"):
            parse(kind, data)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_shape_of_many_dimensions_is_refused_without_being_multiplied() -> None:
    """A product of a hundred thousand large numbers takes minutes."""
    message = oip_pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[2**62] * 100_000).contents.fp32_contents.append(1)
    with pytest.raises(
        InvalidRequestError, match=r"shape \[4611686018427387904, .* 100000 dimensions\] does not"
    ):
        oip_inference.decode(message.SerializeToString())


def test_the_dimensions_that_are_shown_are_few() -> None:
    assert shown_shape(()) == "[]"
    assert shown_shape((1, 2)) == "[1, 2]"
    assert shown_shape((7,) * 9) == "[7, 7, 7, 7, 7, 7, 7, 7, … 9 dimensions]"


def test_decoders_check_what_they_parse() -> None:
    with pytest.raises(InvalidRequestError, match="a string of"):
        predictd_v1.decode(pb.PredictRequest(model="m" * 2 * MIB).SerializeToString())
