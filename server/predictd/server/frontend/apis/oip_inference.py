"""ModelInfer and ModelStreamInfer of the Open Inference Protocol: the pure codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis import payloads
from predictd.server.frontend.apis.oip_contents import raw_contents
from predictd.server.frontend.apis.oip_parameters import (
    class_count,
    refuse_input_parameters,
    request_parameters,
)
from predictd.server.frontend.apis.rpc import parse
from predictd.server.frontend.apis.wire import length_prefix
from predictd.server.frontend.inference import Buffer, InferRequest, InferResponse, InputTensor

if TYPE_CHECKING:
    from predictd.server.frontend.status import Failure

_DTYPES: Mapping[str, DType] = {dtype.name: dtype for dtype in DType}
_RAW_INPUTS = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_STREAMED_RESPONSE = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
# What an int64 holds, and short enough to be converted in no time.
_VERSION_DIGITS_MAX = 18


@dataclass(slots=True)
class OipRequest(InferRequest):
    """A request with what the adapter itself does to the answer.

    Attributes:
        classification: Outputs of which the highest classes are asked for, and how many.
    """

    classification: Sequence[tuple[str, int]] = ()


def decode(data: bytes) -> OipRequest:
    """A ModelInferRequest's bytes as a request.

    Raises:
        InvalidRequestError: They are not a ModelInferRequest, or contradict the protocol.
        UnsupportedError: A parameter asks for something that predictd does not do.
    """
    return infer_request(*parsed(data))


def parsed(data: bytes) -> tuple[pb.ModelInferRequest, Sequence[Buffer]]:
    """A ModelInferRequest, and its raw contents, which stay where they are if they are large. Raises as `decode`."""
    if found := payloads.cut(data, _RAW_INPUTS):
        return parse(pb.ModelInferRequest, found.rest), found.payloads
    message = parse(pb.ModelInferRequest, data)
    return message, message.raw_input_contents


def infer_request(message: pb.ModelInferRequest, raw: Sequence[Buffer]) -> OipRequest:
    """A ModelInferRequest and its raw contents as a request. Raises as `decode`."""
    if not message.model_name:
        raise InvalidRequestError("the request names no model")
    parameters = request_parameters(message.parameters)
    counts = [(output.name, class_count(output.name, output.parameters)) for output in message.outputs]
    return OipRequest(
        model=message.model_name,
        inputs=_inputs(message, raw),
        version=version_number(message.model_version),
        outputs=[output.name for output in message.outputs],
        priority=parameters.priority,
        id=message.id,
        timeout_ns=parameters.timeout_ns,
        classification=[(name, count) for name, count in counts if count],
    )


def version_number(text: str) -> int | None:
    """A version as the protocol writes it; None for the default one.

    Raises:
        InvalidRequestError: It is not a positive decimal number.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _VERSION_DIGITS_MAX and int(text) > 0):
        raise InvalidRequestError(f"a model version must be a positive number, not {text!r}")
    return int(text)


def encode(response: InferResponse, request_id: str) -> bytes:
    """An answer as a ModelInferResponse's bytes."""
    return b"".join(_parts(_head(response, request_id), response))


def encode_streamed(response: InferResponse, request_id: str) -> bytes:
    """An answer as a ModelStreamInferResponse's bytes."""
    head = _head(response, request_id)
    head.parameters["triton_final_response"].bool_param = True
    parts = _parts(head, response)
    return b"".join((length_prefix(_STREAMED_RESPONSE, sum(map(len, parts))), *parts))


def encode_error(failure: Failure, request: pb.ModelInferRequest) -> bytes:
    """A failure as a ModelStreamInferResponse's bytes; the request tells the client which one failed."""
    message = pb.ModelStreamInferResponse(
        # An empty one would read as success.
        error_message=failure.message or failure.code.name,
        infer_response=pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        ),
    )
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return message.SerializeToString()


def _inputs(message: pb.ModelInferRequest, raw: Sequence[Buffer]) -> Sequence[InputTensor]:
    tensors = message.inputs
    for tensor in tensors:
        refuse_input_parameters(tensor.name, tensor.parameters)
    if not raw:
        return [_typed(tensor) for tensor in tensors]
    for tensor in tensors:
        if tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {tensor.name!r}: contents must not be specified when using raw_input_contents"
            )
    if len(raw) != len(tensors):
        raise InvalidRequestError(
            f"expected {len(tensors)} raw_input_contents, one for each input, and {len(raw)} came"
        )
    return [
        InputTensor(tensor.name, _dtype(tensor), tuple(tensor.shape), data)
        for tensor, data in zip(tensors, raw, strict=True)
    ]


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> InputTensor:
    dtype, shape = _dtype(tensor), tuple(tensor.shape)
    return InputTensor(tensor.name, dtype, shape, raw_contents(tensor.name, dtype, shape, tensor.contents))


def _dtype(tensor: pb.ModelInferRequest.InferInputTensor) -> DType:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidRequestError(f"input {tensor.name!r} has an unknown datatype: {tensor.datatype!r}")
    return dtype


def _head(response: InferResponse, request_id: str) -> pb.ModelInferResponse:
    """An answer without the contents of its outputs."""
    return pb.ModelInferResponse(
        model_name=response.model,
        model_version=str(response.version),
        id=request_id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=output.name, datatype=output.dtype.name, shape=output.shape
            )
            for output in response.outputs
        ],
    )


def _parts(head: pb.ModelInferResponse, response: InferResponse) -> list[Buffer]:
    """The bytes of a ModelInferResponse, to be joined."""
    parts: list[Buffer] = [head.SerializeToString()]
    for output in response.outputs:
        parts += (length_prefix(_CONTENTS, len(output.data)), output.data)
    return parts
