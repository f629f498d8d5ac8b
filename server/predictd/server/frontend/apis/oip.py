"""The Open Inference Protocol (KServe v2) with Triton's extensions: the service."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import grpc

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import ModelUnavailableError, UnknownModelError
from predictd.server.frontend.apis import headings, oip_control, oip_logging
from predictd.server.frontend.apis.oip_classification import check_classification, classified
from predictd.server.frontend.apis.oip_inference import (
    OipRequest,
    decode,
    encode,
    encode_error,
    encode_streamed,
    infer_request,
    parsed,
    version_number,
)
from predictd.server.frontend.apis.oip_metadata import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
)
from predictd.server.frontend.apis.rpc import (
    MESSAGE_BYTES_MAX,
    Context,
    Handler,
    deadline_ns,
    fitting,
    glance,
    inference,
    parse,
    service,
    unary,
)
from predictd.server.frontend.apis.streams import Slot, SlotReply, Streams
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.frontend.control import Control
    from predictd.server.frontend.core import Core
    from predictd.server.frontend.inference import InferResponse

API = "oip"
SERVICE = "inference.GRPCInferenceService"
STATUSES = StatusTable()

# Of the names that Triton gives to extensions, those that work here.
_EXTENSIONS = ("classification", "schedule_policy", "model_configuration", "statistics")


def handlers(
    core: Core,
    streams: Streams | None = None,
    max_message_bytes: int = MESSAGE_BYTES_MAX,
    control: Control | None = None,
) -> grpc.GenericRpcHandler:
    """The service.

    Args:
        core: Answers.
        streams: Where a server that closes its streams before it stops keeps them.
        max_message_bytes: The largest answer that the server's options let pass.
        control: Carries commands out; without it there are none.
    """
    commands = (
        oip_control.methods(control, STATUSES) | oip_logging.methods(control, STATUSES) if control else {}
    )
    return service(
        SERVICE,
        commands
        | _server(core, control)
        | _models(core)
        | _repository(core)
        | _inference(core, streams or Streams(), max_message_bytes),
    )


def _server(core: Core, control: Control | None) -> dict[str, Handler]:
    usual = _about(_EXTENSIONS)
    controlled = _about((*_EXTENSIONS, *oip_control.EXTENSIONS))

    async def server_live(data: bytes, _: Context) -> bytes:
        parse(pb.ServerLiveRequest, data)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(data: bytes, _: Context) -> bytes:
        parse(pb.ServerReadyRequest, data)
        return pb.ServerReadyResponse(ready=core.ready).SerializeToString()

    async def server_metadata(data: bytes, _: Context) -> bytes:
        parse(pb.ServerMetadataRequest, data)
        return controlled if control and control.allowed else usual

    return {
        "ServerLive": unary(server_live, STATUSES),
        "ServerReady": unary(server_ready, STATUSES),
        "ServerMetadata": unary(server_metadata, STATUSES),
    }


def _about(extensions: Sequence[str]) -> bytes:
    about = pb.ServerMetadataResponse(
        name="predictd", version=metadata.version("predictd"), extensions=extensions
    )
    return bytes(about.SerializeToString())


def _models(core: Core) -> dict[str, Handler]:
    async def ready(data: bytes, _: Context) -> bytes:
        request = parse(pb.ModelReadyRequest, data)
        try:
            core.version(request.name, version_number(request.version), None)
        except ModelUnavailableError:
            return pb.ModelReadyResponse(ready=False).SerializeToString()
        return pb.ModelReadyResponse(ready=True).SerializeToString()

    async def about(data: bytes, _: Context) -> bytes:
        request = parse(pb.ModelMetadataRequest, data)
        version = core.version(request.name, version_number(request.version), None)
        return model_metadata(core.model(request.name), version).SerializeToString()

    async def config(data: bytes, _: Context) -> bytes:
        request = parse(pb.ModelConfigRequest, data)
        version = core.version(request.name, version_number(request.version), None)
        return model_config(request.name, version).SerializeToString()

    return {
        "ModelReady": unary(ready, STATUSES),
        "ModelMetadata": unary(about, STATUSES),
        "ModelConfig": unary(config, STATUSES),
    }


def _repository(core: Core) -> dict[str, Handler]:
    async def statistics(data: bytes, _: Context) -> bytes:
        request = parse(pb.ModelStatisticsRequest, data)
        number = version_number(request.version)
        if request.name:
            _require(core, request.name, number)
        lanes = [
            lane
            for lane in await core.statistics()
            if request.name in ("", lane.model) and number in (None, lane.version)
        ]
        return model_statistics(lanes).SerializeToString()

    async def index(data: bytes, _: Context) -> bytes:
        request = parse(pb.RepositoryIndexRequest, data)
        oip_control.refuse_repository(request.repository_name)
        return repository_index(core.models(), request.ready).SerializeToString()

    return {
        "ModelStatistics": unary(statistics, STATUSES),
        "RepositoryIndex": unary(index, STATUSES),
    }


def _inference(core: Core, streams: Streams, max_message_bytes: int) -> dict[str, Handler]:
    async def infer(data: bytes, deadline: int) -> bytes:
        request = decode(data)
        response = await _infer(core, request, deadline)
        return fitting(encode(response, request.id), max_message_bytes)

    async def stream_infer(_: object, context: Context) -> None:
        deadline = deadline_ns(context)

        def take(data: bytes, slot: Slot) -> None:
            message = pb.ModelInferRequest()

            def encoded(response: InferResponse) -> bytes:
                return fitting(encode_streamed(response, message.id), max_message_bytes)

            def failed(error: Exception) -> bytes:
                return encode_error(STATUSES.failure(error), message)

            reply = SlotReply(slot, encoded, failed)
            try:
                if heading := glance(data, core, headings.oip):
                    version = str(heading.version or "")
                    message = pb.ModelInferRequest(
                        model_name=heading.model, model_version=version, id=heading.id
                    )
                    core.check_unparsed(heading, API, deadline)
                message, raw = parsed(data)
                request = infer_request(message, raw)
                if request.classification:
                    reply.resume(_infer(core, request, deadline))
                else:
                    slot.pending = core.begin(request, API, deadline, reply)
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
                slot.fill(failed(error))

        # As Triton does: its clients may give no id and count the answers.
        await streams.serve(context, take, in_order=True)

    return {
        "ModelInfer": inference(infer, STATUSES, core, API, headings.oip),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream_infer),
    }


async def _infer(core: Core, request: OipRequest, deadline: int) -> InferResponse:
    if not request.classification:
        return await core.infer(request, API, deadline)
    version = core.version(request.model, request.version, request.label)
    check_classification(version, request.classification)
    # Of the very version whose labels were read.
    request.version = version.version
    response = await core.infer(request, API, deadline)
    return classified(response, version, request.classification)


def _require(core: Core, name: str, number: int | None) -> None:
    """Statistics outlive readiness, so this asks for existence only."""
    model = core.model(name)
    if number is not None and all(version.version != number for version in model.versions):
        raise UnknownModelError(f"model {name!r} has no version {number}")
