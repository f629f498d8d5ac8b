from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError, RequestError, UnsupportedError
from predictd.server.frontend.apis import oip_inference
from predictd.server.frontend.inference import InferRequest, InferResponse, InputTensor, OutputTensor
from predictd.server.frontend.status import Failure

tensors = st.builds(
    InputTensor,
    name=st.text(max_size=8),
    dtype=st.sampled_from(DType),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(tuple),
    data=st.binary(max_size=64),
)


def infer_request(inputs: list[InputTensor], **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name="m",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=t.name, datatype=t.dtype.name, shape=t.shape)
            for t in inputs
        ],
        raw_input_contents=[bytes(t.data) for t in inputs],
        **fields,
    )


def decode(message: pb.ModelInferRequest) -> InferRequest:
    return oip_inference.decode(message.SerializeToString())


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", parameters={name: pb.InferParameter(**value)})


@given(st.lists(tensors, min_size=1, max_size=4), st.text(max_size=8), st.lists(st.text(max_size=4)))
def test_decoding_keeps_everything(inputs: list[InputTensor], request_id: str, outputs: list[str]) -> None:
    requested = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    request = decode(infer_request(inputs, id=request_id, outputs=requested, model_version="12"))
    assert list(request.inputs) == inputs
    assert (request.model, request.version, request.label, request.id) == ("m", 12, None, request_id)
    assert list(request.outputs) == outputs
    assert (request.priority, request.timeout_ns) == (0, 0)


@given(st.lists(tensors, max_size=4), st.text(max_size=8))
def test_encoding_keeps_everything(outputs: list[InputTensor], request_id: str) -> None:
    response = InferResponse(
        "m", 5, [OutputTensor(t.name, t.dtype, t.shape, memoryview(t.data)) for t in outputs], 1, 2, 3
    )
    message = pb.ModelInferResponse.FromString(oip_inference.encode(response, request_id))
    assert (message.id, message.model_name, message.model_version) == (request_id, "m", "5")
    assert [(o.name, o.datatype, tuple(o.shape)) for o in message.outputs] == [
        (t.name, t.dtype.name, t.shape) for t in outputs
    ]
    assert list(message.raw_output_contents) == [t.data for t in outputs]
    assert not message.parameters
    streamed = pb.ModelStreamInferResponse.FromString(oip_inference.encode_streamed(response, request_id))
    assert streamed.infer_response.parameters.pop("triton_final_response").bool_param is True
    assert streamed == pb.ModelStreamInferResponse(infer_response=message)


def test_an_error_in_a_stream_is_never_empty() -> None:
    request = pb.ModelInferRequest(model_name="m", model_version="2", id="r")
    data = oip_inference.encode_error(Failure(grpc.StatusCode.CANCELLED, ""), request)
    message = pb.ModelStreamInferResponse.FromString(data)
    assert message.error_message == "CANCELLED"
    answer = message.infer_response
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "2", "r")


@pytest.mark.parametrize("version", ["x", "1.0", "-1", "0", "+1", " 1", "1_0", "٣", "9" * 5000])
def test_a_version_that_is_no_positive_number_is_refused(version: str) -> None:
    with pytest.raises(InvalidRequestError, match="a model version must be a positive number"):
        decode(pb.ModelInferRequest(model_name="m", model_version=version))


def test_an_empty_version_is_the_default() -> None:
    assert decode(pb.ModelInferRequest(model_name="m")).version is None


def test_raw_and_typed_contents_do_not_mix() -> None:
    message = infer_request(
        [InputTensor("a", DType.INT8, (1,), b"1"), InputTensor("b", DType.INT8, (1,), b"2")]
    )
    message.inputs[1].contents.int_contents.append(2)
    with pytest.raises(InvalidRequestError, match="input 'b': contents must not be specified"):
        decode(message)


@pytest.mark.parametrize("count", [1, 3])
def test_raw_contents_are_as_many_as_the_inputs(count: int) -> None:
    message = infer_request([InputTensor("a", DType.INT8, (1,), b"1")] * 2)
    message.raw_input_contents[:] = [b"1"] * count
    with pytest.raises(
        InvalidRequestError, match=f"expected 2 raw_input_contents, one for each input, and {count} came"
    ):
        decode(message)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.ModelInferRequest(), "names no model"),
        (
            pb.ModelInferRequest(
                model_name="m",
                inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FLOAT")],
            ),
            "input 'x' has an unknown datatype: 'FLOAT'",
        ),
        (
            pb.ModelInferRequest(
                model_name="m",
                inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2])],
            ),
            "input 'x': shape .2. does not fit 0 elements",
        ),
    ],
)
def test_what_contradicts_the_protocol_is_refused(message: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        decode(message)


def test_bytes_that_are_no_request_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"not a valid inference\.ModelInferRequest"):
        oip_inference.decode(b"\xff\xff\xff")


def test_timeout_and_priority_are_honoured() -> None:
    assert decode(with_parameter("timeout", int64_param=1500)).timeout_ns == 1_500_000
    assert decode(with_parameter("priority", int64_param=2)).priority == 2
    assert decode(with_parameter("priority", uint64_param=3)).priority == 3


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "sequence_id", "int64_param": 0},
        {"name": "sequence_id", "string_param": ""},
        {"name": "sequence_start", "bool_param": False},
        {"name": "sequence_end", "bool_param": False},
        {"name": "triton_enable_empty_final_response", "bool_param": True},
        {"name": "mine", "bool_param": True},
        {"name": "mine", "int64_param": -1},
        {"name": "mine", "string_param": "x"},
        {"name": "mine", "double_param": 0.5},
    ],
)
def test_parameters_that_ask_for_nothing_are_accepted(parameter: dict[str, Any]) -> None:
    request = decode(with_parameter(**parameter))
    assert (request.priority, request.timeout_ns) == (0, 0)


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ({"name": "timeout", "int64_param": -1}, InvalidRequestError),
        ({"name": "timeout", "string_param": "5"}, InvalidRequestError),
        ({"name": "timeout", "uint64_param": 5}, InvalidRequestError),
        ({"name": "timeout"}, InvalidRequestError),
        ({"name": "priority", "int64_param": -1}, InvalidRequestError),
        ({"name": "priority", "bool_param": True}, InvalidRequestError),
        ({"name": "sequence_id", "int64_param": 5}, UnsupportedError),
        ({"name": "sequence_id", "string_param": "a"}, UnsupportedError),
        ({"name": "sequence_id", "double_param": 0.0}, InvalidRequestError),
        ({"name": "sequence_start", "bool_param": True}, UnsupportedError),
        ({"name": "sequence_start", "int64_param": 0}, InvalidRequestError),
        ({"name": "sequence_end", "bool_param": True}, UnsupportedError),
        ({"name": "shared_memory_region", "string_param": "r"}, UnsupportedError),
        ({"name": "classification", "int64_param": 3}, InvalidRequestError),
        ({"name": "triton_enable_empty_final_response", "int64_param": 1}, InvalidRequestError),
        ({"name": "triton_other", "bool_param": True}, InvalidRequestError),
        ({"name": "headers", "string_param": "x"}, InvalidRequestError),
        ({"name": "binary_data_output", "bool_param": True}, InvalidRequestError),
        ({"name": "mine", "uint64_param": 1}, InvalidRequestError),
        ({"name": "mine"}, InvalidRequestError),
    ],
)
def test_parameters_that_predictd_does_not_honour_are_refused_by_name(
    parameter: dict[str, Any], error: type[RequestError]
) -> None:
    with pytest.raises(error, match=f"'{parameter['name']}'"):
        decode(with_parameter(**parameter))


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("shared_memory_region", UnsupportedError),
        ("shared_memory_byte_size", UnsupportedError),
        ("anything", InvalidRequestError),
    ],
)
def test_parameters_of_tensors_are_refused_by_name(
    kind: str, parameter: str, error: type[RequestError]
) -> None:
    message = pb.ModelInferRequest(model_name="m")
    getattr(message, kind).add(name="t", parameters={parameter: pb.InferParameter(int64_param=3)})
    with pytest.raises(error, match=f"{kind[:-1]} 't': .*'{parameter}'"):
        decode(message)
