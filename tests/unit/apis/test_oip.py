from __future__ import annotations

import asyncio
import dataclasses
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import pytest

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.protos.oip import model_config_pb2 as config_pb
from predictd.server.config.lane import QueueRules
from predictd.server.errors import DeadlineError, OverloadedError
from predictd.server.frontend.apis import oip
from predictd.server.frontend.apis.oip_metadata import model_config
from predictd.server.frontend.inference import VersionInfo
from tests.unit.apis.test_fake_core import FakeControl, FakeCore, refusal, serving, unary

if TYPE_CHECKING:
    from google.protobuf.message import Message

UNARY = {m.name for m in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods} - {
    "ModelStreamInfer"
}
ResponseT = TypeVar("ResponseT", bound="Message")


def ask(method: str, request: Message, kind: type[ResponseT], core: FakeCore | None = None) -> ResponseT:
    """The answer to one call."""

    async def scenario() -> bytes:
        async with serving(oip.handlers(core or FakeCore(), control=FakeControl())) as channel:
            return await unary(channel, f"/{oip.SERVICE}/{method}")(request.SerializeToString())

    return kind.FromString(asyncio.run(scenario()))


def refused(method: str, request: Message | bytes, core: FakeCore | None = None) -> grpc.aio.AioRpcError:
    """The error that one call ends with."""
    data = request if isinstance(request, bytes) else request.SerializeToString()

    async def scenario() -> grpc.aio.AioRpcError:
        async with serving(oip.handlers(core or FakeCore(), control=FakeControl())) as channel:
            return await refusal(unary(channel, f"/{oip.SERVICE}/{method}")(data))

    return asyncio.run(scenario())


def test_a_server_that_answers_is_live_and_may_be_ready() -> None:
    core = FakeCore()
    assert ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, core).live is True
    assert ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, core).ready is True
    core.ready = False
    assert ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, core).live is True
    assert ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, core).ready is False


def test_server_metadata_names_what_works() -> None:
    about = ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert (about.name, about.version) == ("predictd", version("predictd"))
    assert list(about.extensions) == [
        "classification",
        "schedule_policy",
        "model_configuration",
        "statistics",
        "model_repository",
        "model_repository(unload_dependents)",
        "logging",
    ]


@pytest.mark.parametrize(
    ("model", "number", "ready"),
    [
        ("echo", "", True),
        ("echo", "1", True),
        ("echo", "3", False),
        ("broken", "", False),
        ("broken", "1", False),
    ],
)
def test_a_model_is_ready_or_not(model: str, number: str, ready: bool) -> None:
    request = pb.ModelReadyRequest(name=model, version=number)
    assert ask("ModelReady", request, pb.ModelReadyResponse).ready is ready


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(
    ("model", "number", "code"),
    [
        ("nope", "", grpc.StatusCode.NOT_FOUND),
        ("echo", "9", grpc.StatusCode.NOT_FOUND),
        ("echo", "first", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_questions_about_an_unknown_model_or_version_are_refused(
    method: str, model: str, number: str, code: grpc.StatusCode
) -> None:
    # All four requests have the same fields.
    error = refused(method, pb.ModelReadyRequest(name=model, version=number))
    assert error.code() is code
    assert (model if code is grpc.StatusCode.NOT_FOUND else number) in (error.details() or "")


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
def test_metadata_of_a_version_that_is_not_ready_is_unavailable(method: str) -> None:
    request = pb.ModelMetadataRequest(name="echo", version="3")
    assert refused(method, request).code() is grpc.StatusCode.UNAVAILABLE


def test_metadata_of_a_model_that_batches_shows_the_batch_dimension() -> None:
    about = ask("ModelMetadata", pb.ModelMetadataRequest(name="echo"), pb.ModelMetadataResponse)
    tensor = pb.ModelMetadataResponse.TensorMetadata
    assert (about.name, about.platform, list(about.versions)) == ("echo", "onnxruntime_onnx", ["1"])
    assert list(about.inputs) == [
        tensor(name="x", datatype="FP32", shape=[-1, 3]),
        tensor(name="s", datatype="BYTES", shape=[-1]),
    ]
    assert about.outputs == about.inputs


def test_metadata_of_a_model_that_does_not_batch() -> None:
    about = ask("ModelMetadata", pb.ModelMetadataRequest(name="single"), pb.ModelMetadataResponse)
    assert about.platform == "other"
    assert [(t.datatype, list(t.shape)) for t in about.inputs] == [("BF16", [2, 2])]
    assert [(t.datatype, list(t.shape)) for t in about.outputs] == [("INT8", [])]


def test_configuration_of_a_model_that_batches_leaves_the_batch_dimension_out() -> None:
    config = ask("ModelConfig", pb.ModelConfigRequest(name="echo"), pb.ModelConfigResponse).config
    assert config == config_pb.ModelConfig(
        name="echo",
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        max_batch_size=32,
        input=[
            config_pb.ModelInput(name="x", data_type=config_pb.TYPE_FP32, dims=[3]),
            config_pb.ModelInput(name="s", data_type=config_pb.TYPE_STRING, optional=True),
        ],
        output=[
            config_pb.ModelOutput(name="x", data_type=config_pb.TYPE_FP32, dims=[3]),
            config_pb.ModelOutput(name="s", data_type=config_pb.TYPE_STRING),
        ],
        instance_group=[config_pb.ModelInstanceGroup(name="echo", count=2)],
        dynamic_batching=config_pb.ModelDynamicBatching(max_queue_delay_microseconds=1500),
    )


def test_configuration_of_a_model_that_does_not_batch() -> None:
    config = ask("ModelConfig", pb.ModelConfigRequest(name="single"), pb.ModelConfigResponse).config
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert [(t.data_type, list(t.dims)) for t in config.input] == [(config_pb.TYPE_BF16, [2, 2])]


@pytest.mark.parametrize(
    ("model", "number", "found"),
    [
        ("", "", [("echo", "1"), ("echo", "2"), ("single", "7")]),
        ("echo", "", [("echo", "1"), ("echo", "2")]),
        ("echo", "2", [("echo", "2")]),
        ("echo", "3", []),
    ],
)
def test_statistics_are_filtered(model: str, number: str, found: list[tuple[str, str]]) -> None:
    request = pb.ModelStatisticsRequest(name=model, version=number)
    stats = ask("ModelStatistics", request, pb.ModelStatisticsResponse).model_stats
    assert [(lane.name, lane.version) for lane in stats] == found


def test_statistics_tell_all_that_is_counted() -> None:
    request = pb.ModelStatisticsRequest(name="echo", version="1")
    (stats,) = ask("ModelStatistics", request, pb.ModelStatisticsResponse).model_stats
    duration = pb.StatisticDuration
    assert stats == pb.ModelStatistics(
        name="echo",
        version="1",
        last_inference=1_700_000_000_000,
        inference_count=10,
        execution_count=3,
        inference_stats=pb.InferStatistics(
            success=duration(count=8, ns=80),
            fail=duration(count=1, ns=5),
            queue=duration(count=8, ns=20),
            compute_infer=duration(count=8, ns=50),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=2, compute_infer=duration(count=1, ns=20)),
            pb.InferBatchStatistics(batch_size=4, compute_infer=duration(count=2, ns=30)),
        ],
    )


def test_the_index_tells_states_in_the_words_of_triton() -> None:
    index = ask("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    assert [(m.name, m.version, m.state, m.reason) for m in index.models] == [
        ("broken", "1", "UNAVAILABLE", "model.onnx: no such operator"),
        ("echo", "3", "LOADING", ""),
        ("echo", "2", "UNLOADING", ""),
        ("echo", "1", "READY", ""),
        ("single", "7", "READY", ""),
    ]
    ready = ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse)
    assert [(m.name, m.version) for m in ready.models] == [("echo", "1"), ("single", "7")]


def test_a_repository_has_no_name() -> None:
    error = refused("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="r"))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'repository_name'" in (error.details() or "")


def test_inference_answers_with_raw_contents() -> None:
    request = pb.ModelInferRequest(model_name="echo", id="r1")
    request.inputs.add(name="x", datatype="FP32", shape=[2], contents={"fp32_contents": [1, 2]})
    core = FakeCore()
    response = ask("ModelInfer", request, pb.ModelInferResponse, core)
    assert (response.model_name, response.model_version, response.id) == ("echo", "1", "r1")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [("x", "FP32", [2])]
    assert list(response.raw_output_contents) == [bytes.fromhex("0000803f00000040")]
    assert core.seen[0].api == "oip"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (OverloadedError("m"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DeadlineError("m"), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_failures_become_statuses(failure: Exception, code: grpc.StatusCode) -> None:
    core = FakeCore()
    core.failures["r"] = failure
    error = refused("ModelInfer", pb.ModelInferRequest(model_name="echo", id="r"), core)
    assert (error.code(), error.details()) == (code, "m")


@pytest.mark.parametrize("method", sorted(UNARY))
def test_each_method_of_the_proto_is_served_and_refuses_garbage(method: str) -> None:
    assert refused(method, b"\xff\xff").code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_method_that_predictd_does_not_have_is_unimplemented() -> None:
    assert refused("TraceSetting", b"").code() is grpc.StatusCode.UNIMPLEMENTED


def test_configuration_shows_how_batches_are_formed_and_requests_wait() -> None:
    general = QueueRules(max_queue_size=7, timeout_ns=5_000_000, timeout_override=True)
    special = QueueRules(max_queue_size=9, delay=True)
    version = VersionInfo(
        version=1,
        state="READY",
        engine="onnxruntime",
        batches=True,
        max_batch_size=8,
        max_delay_ns=2_000_000,
        preferred_batch_sizes=(4, 8),
        priority_levels=3,
        default_priority=2,
        queues=(special, general, general),
    )
    batching = config_pb.ModelDynamicBatching(
        preferred_batch_size=[4, 8],
        max_queue_delay_microseconds=2000,
        priority_levels=3,
        default_priority_level=2,
        default_queue_policy=config_pb.ModelQueuePolicy(
            default_timeout_microseconds=5000, allow_timeout_override=True, max_queue_size=7
        ),
        priority_queue_policy={
            1: config_pb.ModelQueuePolicy(timeout_action=config_pb.ModelQueuePolicy.DELAY, max_queue_size=9)
        },
    )
    assert model_config("m", version).config.dynamic_batching == batching
    # Levels of our own are nobody's configuration.
    plain = dataclasses.replace(version, priority_levels=0, queues=(general,) * 3)
    shown = model_config("m", plain).config.dynamic_batching
    assert (shown.priority_levels, shown.default_queue_policy.max_queue_size) == (0, 7)
