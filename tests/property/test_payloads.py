"""Requests whose tensors are cut out of the bytes are what the library's parser makes of them, whatever the bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import RequestError
from predictd.server.frontend.apis import oip_inference, payloads, predictd_v1
from predictd.server.frontend.inference import InferRequest
from tests.property.test_headings import mutations, oip_requests, predictd_requests

NEVER = 2**62

Decode = Callable[[bytes], InferRequest]


def outcome(decode: Decode, data: bytes, cut_bytes: int) -> dict[str, Any] | tuple[type[Exception], str]:
    """What a request is with its tensors cut out if it has so many bytes, in terms that can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "CUT_BYTES", cut_bytes)
        try:
            request = decode(data)
        except RequestError as error:
            return type(error), str(error)
    inputs = [(t.name, t.dtype, t.shape, bytes(t.data)) for t in request.inputs]
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return fields | {"inputs": inputs, "outputs": list(request.outputs)}


many = settings(max_examples=400)


@many
@given(mutations(predictd_requests()))
@example(b"")
@example(b"\x2a\x00")
@example(b"\x2a\x06\x22\x01a\x22\x01b")
@example(b"\x0a\x01m\x2a\x05\x0a\x01\xff\x22\x00")
@example(b"\x0a\x01m\xaa\x00\x06\x10\x02\x22\x02ab")
def test_requests_of_ours(data: bytes) -> None:
    assert outcome(predictd_v1.decode, data, 0) == outcome(predictd_v1.decode, data, NEVER)


@many
@given(mutations(oip_requests()))
@example(b"")
@example(b"\x3a\x00")
@example(b"\x0a\x01m\x3a\x02ab\x3a\x01c")
def test_requests_of_the_open_inference_protocol(data: bytes) -> None:
    assert outcome(oip_inference.decode, data, 0) == outcome(oip_inference.decode, data, NEVER)


def test_a_large_tensor_is_not_copied() -> None:
    content = bytes(range(256)) * 1024
    ours = pb.PredictRequest(model="m")
    ours.inputs.add(name="x", dtype=pb.UINT8, shape=[len(content)], data=content)
    theirs = oip_pb.ModelInferRequest(model_name="m", raw_input_contents=[content])
    theirs.inputs.add(name="x", datatype="UINT8", shape=[len(content)])
    for decode, data in (
        (predictd_v1.decode, ours.SerializeToString()),
        (oip_inference.decode, theirs.SerializeToString()),
    ):
        (tensor,) = decode(data).inputs
        assert tensor.data == content
        assert isinstance(tensor.data, memoryview)
        assert tensor.data.obj is data


def test_what_is_small_is_left_to_the_library() -> None:
    message = pb.PredictRequest(model="m", inputs=[pb.Tensor(name="x", data=bytes(1000))])
    assert payloads.cut(message.SerializeToString(), 5, 4) is None
