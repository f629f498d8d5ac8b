"""The decoders of what clients send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.tfs import serving_pb2 as tfs_pb
from predictd.protos.v1 import control_pb2, routing_pb2
from predictd.server.config.lane import WireTensor
from predictd.server.errors import RequestError
from predictd.server.frontend.admission import LaneInputs
from predictd.server.frontend.apis import (
    headings,
    oip_control,
    oip_inference,
    oip_logging,
    predictd_v1,
    tfs_models,
    tfs_reload,
)
from predictd.server.frontend.apis.rpc import parse
from predictd.server.frontend.apis.tfs_examples import example_inputs, examples
from predictd.server.frontend.apis.tfs_predict import decode_predict
from predictd.server.frontend.changes import Changes
from predictd.server.frontend.control import Control
from predictd.server.frontend.inference import InferRequest, InputTensor, TensorInfo
from predictd.server.repository.override import read_override
from predictd.server.transport.blocks import read_request
from predictd.server.worker.strings import decode_strings
from tests.fixtures.frontend import SECRET, config, signature
from tests.fuzz.api_messages import MESSAGES, OIP, PREDICTD, TFS, TFS_MODELS, WORDS
from tests.fuzz.target import Target

_SPECS = (
    WireTensor("x", DType.FP32, (-1, 3), optional=True),
    WireTensor("s", DType.BYTES, (-1,), optional=True),
    WireTensor("n", DType.INT64, (-1, 1), optional=True),
    *(WireTensor(dtype.name, dtype, (-1,), optional=True) for dtype in DType),
)
_INFOS = tuple(TensorInfo(spec.name, DType(spec.dtype), spec.shape, spec.optional) for spec in _SPECS)
MESSAGE_BYTES_MAX = 2**24


def _admit(request: InferRequest) -> None:
    """Check a request as the front end does, write it into a block, and read that as a worker does."""
    _admitted(request.inputs)


def _admitted(tensors: Sequence[InputTensor]) -> None:
    # New each time: one that remembers shapes would check less.
    admission = LaneInputs(config(max_request_rows=1000), signature(_SPECS), SECRET).admit(tensors)
    block = memoryview(bytearray(admission.layout.size_bytes))
    admission.write(block, 0, 1, tensors)
    layout = read_request(block)
    assert layout.rows == admission.layout.rows
    for placed in layout.inputs:
        data = block[placed.offset : placed.offset + placed.nbytes]
        if placed.dtype is DType.BYTES and placed.present:
            decode_strings(data, placed.shape[0])


def _classify(data: bytes) -> None:
    message = parse(tfs_pb.ClassificationRequest, data)
    tfs_models.choice(message.model_spec)
    _admitted(example_inputs(examples(message.input), _INFOS, MESSAGE_BYTES_MAX))


def _tfs_metadata(data: bytes) -> None:
    request = parse(tfs_pb.GetModelMetadataRequest, data)
    tfs_models.check_metadata_fields(request)
    assert tfs_models.choice(request.model_spec).text


def _loaded(data: bytes) -> None:
    request = parse(oip_pb.RepositoryModelLoadRequest, data)
    # The method's own way to the text of the configuration.
    read_override(oip_control._config(request.parameters), request.model_name)


def _logging(data: bytes) -> None:
    oip_logging.wanted_level(parse(oip_pb.LogSettingsRequest, data).settings, "info")


def _commands(data: bytes) -> None:
    """A command is refused, or it is sent: then nobody answers, and nobody waits."""
    load = parse(control_pb2.LoadModelRequest, data)
    sent: list[object] = []
    _until_sent(Control(sent.append).load(load.model, load.config), sent)
    read_override(load.config, load.model)


def _label(data: bytes) -> None:
    request = parse(routing_pb2.SetLabelRequest, data)
    sent: list[object] = []
    changes = Changes(lambda message, _: sent.append(message))
    _until_sent(changes.set_label(request.model, request.label, request.version, allow_unready=False), sent)


def _split(data: bytes) -> None:
    request = parse(routing_pb2.SetSplitRequest, data)
    shares = [(share.version, share.percent) for share in request.shares]
    sent: list[object] = []
    changes = Changes(lambda message, _: sent.append(message))
    _until_sent(changes.set_split(request.model, shares, allow_unready=False), sent)


_loop = asyncio.new_event_loop()


def _until_sent(command: Any, sent: Sequence[object]) -> None:
    async def scenario() -> None:
        task = asyncio.ensure_future(command)
        await asyncio.sleep(0)
        if not task.done():
            assert sent
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    _loop.run_until_complete(scenario())


_servicer = reflection.aio.ReflectionServicer((predictd_v1.SERVICE,))


def _reflect(data: bytes) -> None:
    async def scenario() -> None:
        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield parse(reflection_pb2.ServerReflectionRequest, data)

        async for answer in _servicer.ServerReflectionInfo(requests(), None):
            answer.SerializeToString()

    _loop.run_until_complete(scenario())


def _target(name: str, method: str, run: Callable[[bytes], object], seeds: Iterable[bytes] = ()) -> Target:
    return Target(name, run, (*MESSAGES[method], *seeds), (RequestError,), WORDS)


TARGETS = (
    _target("predictd_v1", PREDICTD + "Predict", lambda data: _admit(predictd_v1.decode(data))),
    _target("oip", OIP + "ModelInfer", lambda data: _admit(oip_inference.decode(data))),
    _target(
        "tfs_predict",
        TFS + "Predict",
        lambda data: _admit(decode_predict(parse(tfs_pb.PredictRequest, data), MESSAGE_BYTES_MAX)),
    ),
    _target("tfs_examples", TFS + "Classify", _classify),
    _target("tfs_metadata", TFS + "GetModelMetadata", _tfs_metadata),
    _target(
        "tfs_reload",
        TFS_MODELS + "HandleReloadConfigRequest",
        lambda data: tfs_reload.listed(parse(tfs_pb.ReloadConfigRequest, data)),
    ),
    _target("headings_predictd_v1", PREDICTD + "Predict", headings.predictd_v1),
    _target("headings_oip", OIP + "ModelInfer", headings.oip),
    _target("headings_tfs", TFS + "Predict", headings.tfs),
    _target("oip_load", OIP + "RepositoryModelLoad", _loaded),
    _target("oip_logging", OIP + "LogSettings", _logging),
    _target("load_model", "/predictd.v1.ControlService/LoadModel", _commands),
    _target("set_label", "/predictd.v1.RoutingService/SetLabel", _label),
    _target("set_split", "/predictd.v1.RoutingService/SetSplit", _split),
    _target(
        "health", "/grpc.health.v1.Health/Check", lambda data: parse(health_pb2.HealthCheckRequest, data)
    ),
    _target("reflection", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", _reflect),
)
