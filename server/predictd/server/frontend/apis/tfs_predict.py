"""Predict of TensorFlow Serving's API: the pure codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnsupportedError
from predictd.server.frontend.apis.tfs_models import choice, served
from predictd.server.frontend.apis.tfs_tensors import decode_tensor, encode_tensor
from predictd.server.frontend.inference import InferRequest, InferResponse, InputTensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def decode_predict(message: pb.PredictRequest, bytes_max: int) -> InferRequest:
    """A PredictRequest as a request.

    Args:
        message: As it came.
        bytes_max: How large its inputs may become together once they are written out.

    Raises:
        InvalidRequestError: It contradicts the protocol or itself.
        UnsupportedError: It asks for something that predictd does not do.
    """
    chosen = choice(message.model_spec)
    for option in ("predict_streamed_options", "request_options"):
        if message.HasField(option):
            raise UnsupportedError(f"'{option}' is not supported")
    return InferRequest(
        model=chosen.model,
        inputs=_inputs(message, bytes_max),
        version=chosen.version,
        label=chosen.label,
        outputs=_outputs(message.output_filter),
    )


def encode_predict(response: InferResponse, *, as_content: bool) -> bytes:
    """An answer as a PredictResponse's bytes. For `as_content` see `encode_tensor`."""
    message = pb.PredictResponse()
    served(message.model_spec, response.model, response.version)
    for output in response.outputs:
        encode_tensor(output, message.outputs[output.name], as_content=as_content)
    return message.SerializeToString()


def _inputs(message: pb.PredictRequest, bytes_max: int) -> list[InputTensor]:
    inputs = []
    # A map has no order of its own, and equal requests shall look equal.
    for name in sorted(message.inputs):
        tensor = decode_tensor(name, message.inputs[name], bytes_max)
        bytes_max -= len(tensor.data)
        inputs.append(tensor)
    return inputs


def _outputs(names: Sequence[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequestError(f"duplicate output tensor alias: {name}")
        seen.add(name)
    return tuple(names)
