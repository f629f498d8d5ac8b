"""predictd.v1: our own API. The hot path, so an inference does nothing twice."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import grpc

from predictd.engines.api import DType
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis import headings, payloads
from predictd.server.frontend.apis.rpc import (
    MESSAGE_BYTES_MAX,
    Context,
    deadline_ns,
    fitting,
    glance,
    inference,
    parse,
    service,
    unary,
)
from predictd.server.frontend.apis.streams import Slot, SlotReply, Streams
from predictd.server.frontend.apis.wire import length_prefix
from predictd.server.frontend.inference import (
    Buffer,
    InferRequest,
    InferResponse,
    InputTensor,
    ModelInfo,
    TensorInfo,
    VersionInfo,
)
from predictd.server.frontend.status import Failure, StatusTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from predictd.server.frontend.core import Core

API = "predictd.v1"
SERVICE = "predictd.v1.PredictionService"
STATUSES = StatusTable()

# As `predictd.server.repository.traffic.SetBy` writes it.
_SET_BY = {"configuration": pb.CONFIGURATION, "run time": pb.RUN_TIME}
_TENSORS_KEPT = 1024
_HEADS_KEPT = 256
_INPUTS = pb.PredictRequest.INPUTS_FIELD_NUMBER
_OUTPUTS = pb.PredictResponse.OUTPUTS_FIELD_NUMBER
_DATA = pb.Tensor.DATA_FIELD_NUMBER
_STREAMED_ID = pb.PredictStreamResponse.ID_FIELD_NUMBER
_STREAMED_RESPONSE = pb.PredictStreamResponse.RESPONSE_FIELD_NUMBER
_DTYPES: Mapping[int, DType] = {dtype.value: dtype for dtype in DType}


def decode(data: bytes) -> InferRequest:
    """A PredictRequest's bytes as a request.

    Raises:
        InvalidRequestError: They are not a PredictRequest, or no model is named, or a dtype is unknown.
    """
    return _request(*_parsed(data))


def encode(response: InferResponse, request_id: str) -> bytes:
    """An answer as a PredictResponse's bytes."""
    return b"".join(_parts(response, request_id))


def encode_streamed(response: InferResponse, request_id: str) -> bytes:
    """An answer as a PredictStreamResponse's bytes."""
    parts = _parts(response, request_id)
    size_bytes = sum(map(len, parts))
    encoded_id = request_id.encode()
    head = (length_prefix(_STREAMED_ID, len(encoded_id)), encoded_id) if encoded_id else ()
    return b"".join((*head, length_prefix(_STREAMED_RESPONSE, size_bytes), *parts))


def encode_error(failure: Failure, request_id: str) -> bytes:
    """A failure as a PredictStreamResponse's bytes."""
    code, _ = failure.code.value
    error = pb.Error(code=code, message=failure.message)
    if failure.retry_after_seconds is not None:
        error.retry_after_ns = round(failure.retry_after_seconds * 1e9)
    return pb.PredictStreamResponse(id=request_id, error=error).SerializeToString()


def encode_model(info: ModelInfo) -> pb.Model:
    """A model as its message."""
    return pb.Model(
        name=info.name,
        versions=[_version(version) for version in info.versions],
        default_version=info.default_version,
        labels=[
            pb.Label(
                name=label.name,
                version=label.version,
                set_by=_SET_BY[label.set_by],
                next_version=label.next_version,
            )
            for label in info.labels
        ],
        split=_split(info) if info.split else None,
        settings=[pb.Setting(name=one.name, value=one.value, origin=one.origin) for one in info.settings],
    )


def _split(info: ModelInfo) -> pb.Split:
    shares = [pb.Share(version=version, percent=percent) for version, percent in info.split]
    return pb.Split(shares=shares, set_by=pb.RUN_TIME)


def handlers(
    core: Core, streams: Streams | None = None, max_message_bytes: int = MESSAGE_BYTES_MAX
) -> grpc.GenericRpcHandler:
    """The service.

    Args:
        core: Answers.
        streams: Where a server that closes its streams before it stops keeps them.
        max_message_bytes: The largest answer that the server's options let pass.
    """
    open_streams = streams or Streams()

    async def predict(data: bytes, deadline: int) -> bytes:
        request = decode(data)
        response = await core.infer(request, API, deadline)
        return fitting(encode(response, request.id), max_message_bytes)

    async def predict_stream(_: object, context: Context) -> None:
        deadline = deadline_ns(context)

        def take(data: bytes, slot: Slot) -> None:
            request_id = ""

            def encoded(response: InferResponse) -> bytes:
                return fitting(encode_streamed(response, request_id), max_message_bytes)

            def failed(error: Exception) -> bytes:
                return encode_error(STATUSES.failure(error), request_id)

            try:
                if heading := glance(data, core, headings.predictd_v1):
                    request_id = heading.id
                    core.check_unparsed(heading, API, deadline)
                message, contents = _parsed(data)
                request_id = message.id
                request = _request(message, contents)
                slot.pending = core.begin(request, API, deadline, SlotReply(slot, encoded, failed))
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
                slot.fill(failed(error))

        await open_streams.serve(context, take, in_order=False)

    async def list_models(data: bytes, _: Context) -> bytes:
        parse(pb.ListModelsRequest, data)
        return pb.ListModelsResponse(models=map(encode_model, core.models())).SerializeToString()

    async def get_model(data: bytes, _: Context) -> bytes:
        return encode_model(core.model(parse(pb.GetModelRequest, data).model)).SerializeToString()

    return service(
        SERVICE,
        {
            "Predict": inference(predict, STATUSES, core, API, headings.predictd_v1),
            "PredictStream": grpc.stream_stream_rpc_method_handler(predict_stream),
            "ListModels": unary(list_models, STATUSES),
            "GetModel": unary(get_model, STATUSES),
        },
    )


def _parsed(data: bytes) -> tuple[pb.PredictRequest, Sequence[Buffer]]:
    """A request's message, and the data of its inputs, which stay where they are if they are large."""
    if found := payloads.cut(data, _INPUTS, _DATA):
        return parse(pb.PredictRequest, found.rest), found.payloads
    message = parse(pb.PredictRequest, data)
    return message, [tensor.data for tensor in message.inputs]


def _request(message: pb.PredictRequest, contents: Sequence[Buffer]) -> InferRequest:
    if not message.model:
        raise InvalidRequestError("the request names no model")
    choice = message.WhichOneof("version_choice")
    return InferRequest(
        model=message.model,
        inputs=list(map(_input, message.inputs, contents)),
        version=message.version if choice == "version" else None,
        label=message.label if choice == "label" else None,
        outputs=tuple(message.outputs),
        priority=message.priority,
        id=message.id,
    )


def _input(tensor: pb.Tensor, data: Buffer) -> InputTensor:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidRequestError(f"input {tensor.name!r} has an unknown dtype: {tensor.dtype}")
    return InputTensor(tensor.name, dtype, tuple(tensor.shape), data)


def _parts(response: InferResponse, request_id: str) -> list[Buffer]:
    """The bytes of a PredictResponse, to be joined."""
    head = _head(response.model, response.version)
    head.id = request_id
    timing = head.timing
    timing.queue_ns = response.queue_ns
    timing.compute_ns = response.compute_ns
    timing.batch_rows = response.batch_rows
    parts: list[Buffer] = [head.SerializeToString()]
    for output in response.outputs:
        data = output.data
        before = _before_data(output.name, output.dtype, output.shape, len(data))
        parts += (length_prefix(_OUTPUTS, len(before) + len(data)), before, data)
    return parts


@lru_cache(_HEADS_KEPT)
def _head(model: str, version: int) -> pb.PredictResponse:
    """A PredictResponse for answers of a version, to be filled in anew for each: to make one takes longer."""
    return pb.PredictResponse(model=model, version=version)


@lru_cache(_TENSORS_KEPT)
def _before_data(name: str, dtype: DType, shape: tuple[int, ...], size_bytes: int) -> bytes:
    """A Tensor's bytes up to its data."""
    tensor = pb.PredictResponse().outputs.add(name=name, dtype=dtype.value, shape=shape)
    return tensor.SerializeToString() + length_prefix(_DATA, size_bytes)


def _version(info: VersionInfo) -> pb.ModelVersion:
    return pb.ModelVersion(
        version=info.version,
        state=info.state,
        reason=info.reason,
        engine=info.engine,
        inputs=map(_spec, info.inputs),
        outputs=map(_spec, info.outputs),
        max_batch_size=info.max_batch_size if info.batches else 0,
        labels=info.labels,
        tuned=info.tuned,
    )


def _spec(info: TensorInfo) -> pb.TensorSpec:
    return pb.TensorSpec(name=info.name, dtype=info.dtype.name, shape=info.shape, optional=info.optional)
