"""What is read of a request without parsing it is what the decoders find, whatever the bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.tfs import serving_pb2 as tfs_pb
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import RequestError
from predictd.server.frontend.apis import headings, predictd_v1
from predictd.server.frontend.apis.oip_inference import version_number
from predictd.server.frontend.apis.tfs_models import choice
from predictd.server.frontend.heading import Heading

names = st.sampled_from(["", "m", "resnet50", "modèle", "priority"])
versions = st.one_of(st.integers(1, 9), st.sampled_from([-1, 0, 2**63 - 1]))
contents = st.binary(max_size=300)

_Known = tuple[str, int | None, str | None, int, int, str]


@st.composite
def predictd_requests(draw: st.DrawFn) -> bytes:
    message = pb.PredictRequest(model=draw(names), id=draw(names), outputs=draw(st.lists(names, max_size=2)))
    for data in draw(st.lists(contents, max_size=3)):
        message.inputs.add(name=draw(names), dtype=pb.FP32, shape=[1, len(data) // 4], data=data)
    if draw(st.booleans()):
        message.priority = draw(st.integers(0, 2**32 - 1))
    match draw(st.integers(0, 2)):
        case 0:
            message.version = draw(versions)
        case 1:
            message.label = draw(names)
    return message.SerializeToString()


@st.composite
def oip_requests(draw: st.DrawFn) -> bytes:
    message = oip_pb.ModelInferRequest(
        model_name=draw(names), model_version=draw(st.sampled_from(["", "1", "x", "0", "12"])), id=draw(names)
    )
    for data in draw(st.lists(contents, max_size=3)):
        message.inputs.add(name=draw(names), datatype="FP32", shape=[1, len(data) // 4])
        message.raw_input_contents.append(data)
    if draw(st.booleans()):
        message.parameters["priority"].int64_param = draw(st.integers(0, 3))
    if draw(st.booleans()):
        message.parameters["other"].string_param = draw(names)
    return message.SerializeToString()


@st.composite
def tfs_requests(draw: st.DrawFn) -> bytes:
    message = tfs_pb.PredictRequest()
    message.model_spec.name = draw(names)
    message.model_spec.signature_name = draw(names)
    match draw(st.integers(0, 2)):
        case 0:
            message.model_spec.version.value = draw(versions)
        case 1:
            message.model_spec.version_label = draw(names)
    for name, data in draw(st.dictionaries(names, contents, max_size=2)).items():
        message.inputs[name].tensor_content = data
    return message.SerializeToString()


@st.composite
def mutations(draw: st.DrawFn, requests: st.SearchStrategy[bytes]) -> bytes:
    """Requests one behind the other, which is a request again, with bytes changed, inserted and left out."""
    data = bytearray(b"".join(draw(st.lists(requests, min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = bytes((draw(st.integers(0, 255)),))
            case 1:
                data[at:at] = draw(st.binary(max_size=12))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + draw(st.integers(0, 4))]
    return bytes(data)


def known_predictd_v1(data: bytes) -> _Known:
    request = predictd_v1.decode(data)
    size_bytes = sum(len(tensor.data) for tensor in request.inputs)
    return request.model, request.version, request.label, request.priority, size_bytes, request.id


def known_oip(data: bytes) -> _Known:
    message = oip_pb.ModelInferRequest.FromString(data)
    size_bytes = sum(map(len, message.raw_input_contents))
    parameter = message.parameters.get("priority")
    priority = parameter.int64_param if parameter is not None else 0
    return message.model_name, version_number(message.model_version), None, priority, size_bytes, message.id


def known_tfs(data: bytes) -> _Known:
    chosen = choice(tfs_pb.PredictRequest.FromString(data).model_spec)
    return chosen.model, chosen.version, chosen.label, 0, 0, ""


def check(read: Callable[[bytes], Heading | None], decode: Callable[[bytes], _Known], data: bytes) -> None:
    heading = read(data)
    with contextlib.suppress(RequestError, DecodeError):
        model, version, label, priority, size_bytes, request_id = decode(data)
        if heading is not None:
            assert (heading.model, heading.version, heading.label) == (model, version, label)
            assert heading.priority in (None, priority)
            assert heading.size_bytes <= size_bytes
            assert heading.id == request_id


@given(predictd_requests())
def test_a_request_of_ours_has_its_heading(data: bytes) -> None:
    heading = headings.predictd_v1(data)
    message = pb.PredictRequest.FromString(data)
    assert (heading is None) == (not message.model)
    check(headings.predictd_v1, known_predictd_v1, data)
    if heading:
        assert heading.size_bytes == sum(len(tensor.data) for tensor in message.inputs)


@given(oip_requests())
def test_a_request_of_the_open_inference_protocol_has_its_heading(data: bytes) -> None:
    heading = headings.oip(data)
    message = oip_pb.ModelInferRequest.FromString(data)
    assert (heading is not None) == (bool(message.model_name) and message.model_version in {"", "1", "12"})
    if heading:
        assert heading.size_bytes == sum(map(len, message.raw_input_contents))
        assert heading.priority is None or "priority" not in message.parameters


@given(tfs_requests())
def test_a_request_to_tensorflow_serving_has_its_heading(data: bytes) -> None:
    assert (headings.tfs(data) is None) == (not tfs_pb.PredictRequest.FromString(data).model_spec.name)


@given(mutations(predictd_requests()))
def test_bytes_like_a_request_of_ours_are_read_as_the_decoder_reads_them(data: bytes) -> None:
    check(headings.predictd_v1, known_predictd_v1, data)


@given(mutations(oip_requests()))
def test_bytes_like_one_of_the_open_inference_protocol_are_read_as_the_decoder_reads_them(
    data: bytes,
) -> None:
    check(headings.oip, known_oip, data)


@given(mutations(tfs_requests()))
def test_bytes_like_one_to_tensorflow_serving_are_read_as_the_decoder_reads_them(data: bytes) -> None:
    check(headings.tfs, known_tfs, data)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_heading_or_none(data: bytes) -> None:
    for read in (headings.predictd_v1, headings.oip, headings.tfs):
        heading = read(data)
        assert heading is None or heading.model
