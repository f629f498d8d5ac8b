"""What the Open Inference Protocol tells about models: metadata, configuration, statistics, the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.protos.oip import model_config_pb2 as config_pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from predictd.server.config.lane import QueueRules
    from predictd.server.frontend.inference import (
        DurationSum,
        LaneStatistics,
        ModelInfo,
        TensorInfo,
        VersionInfo,
    )

# Where the names differ from our own.
_TYPES: Mapping[DType, str] = {DType.BYTES: "TYPE_STRING"}
_PLATFORMS: Mapping[str, str] = {"onnxruntime": "onnxruntime_onnx"}
_STATES: Mapping[str, str] = {"FAILED": "UNAVAILABLE"}


def model_metadata(model: ModelInfo, version: VersionInfo) -> pb.ModelMetadataResponse:
    """A version's inputs and outputs, shapes with the batch dimension."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[str(number) for number in sorted(v.version for v in model.versions if v.state == "READY")],
        platform=_platform(version),
        inputs=[_tensor(version, tensor) for tensor in version.inputs],
        outputs=[_tensor(version, tensor) for tensor in version.outputs],
    )


def model_config(model: str, version: VersionInfo) -> pb.ModelConfigResponse:
    """A version's configuration, dimensions without the batch dimension."""
    config = config_pb.ModelConfig(
        name=model,
        platform=_platform(version),
        backend=version.engine,
        max_batch_size=version.max_batch_size if version.batches else 0,
        input=[
            config_pb.ModelInput(
                name=tensor.name,
                data_type=_type(tensor.dtype),
                dims=_dims(version, tensor),
                optional=tensor.optional,
            )
            for tensor in version.inputs
        ],
        output=[
            config_pb.ModelOutput(
                name=tensor.name, data_type=_type(tensor.dtype), dims=_dims(version, tensor)
            )
            for tensor in version.outputs
        ],
        instance_group=[config_pb.ModelInstanceGroup(name=model, count=version.instances)],
    )
    if (version.batches and version.max_batch_size > 1) or version.priority_levels:
        config.dynamic_batching.CopyFrom(_batching(version))
    return pb.ModelConfigResponse(config=config)


def _batching(version: VersionInfo) -> config_pb.ModelDynamicBatching:
    """How batches are formed and requests wait."""
    batching = config_pb.ModelDynamicBatching(
        preferred_batch_size=version.preferred_batch_sizes if version.batches else (),
        max_queue_delay_microseconds=version.max_delay_ns // 1000 if version.batches else 0,
    )
    if not version.queues:
        return batching
    # A model without levels of its own has the same rules for all of ours.
    general = version.queues[version.default_priority - 1]
    batching.default_queue_policy.CopyFrom(_queue_policy(general))
    if version.priority_levels:
        batching.priority_levels = version.priority_levels
        batching.default_priority_level = version.default_priority
        for level, rules in enumerate(version.queues, 1):
            if rules != general:
                batching.priority_queue_policy[level].CopyFrom(_queue_policy(rules))
    return batching


def _queue_policy(rules: QueueRules) -> config_pb.ModelQueuePolicy:
    policy = config_pb.ModelQueuePolicy
    return policy(
        timeout_action=policy.DELAY if rules.delay else policy.REJECT,
        default_timeout_microseconds=rules.timeout_ns // 1000,
        allow_timeout_override=rules.timeout_override,
        max_queue_size=rules.max_queue_size,
    )


def model_statistics(lanes: Iterable[LaneStatistics]) -> pb.ModelStatisticsResponse:
    """Statistics of the lanes given."""
    return pb.ModelStatisticsResponse(model_stats=map(_statistics, lanes))


def repository_index(models: Iterable[ModelInfo], ready_only: bool) -> pb.RepositoryIndexResponse:
    """All versions of all models, or only those that are ready."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=model.name,
                version=str(version.version),
                state=_STATES.get(version.state, version.state),
                reason=version.reason,
            )
            for model in models
            for version in model.versions
            if version.state == "READY" or not ready_only
        ]
    )


def _platform(version: VersionInfo) -> str:
    return _PLATFORMS.get(version.engine, version.engine)


def _tensor(version: VersionInfo, tensor: TensorInfo) -> pb.ModelMetadataResponse.TensorMetadata:
    dims = _dims(version, tensor)
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.dtype.name, shape=(-1, *dims) if version.batches else dims
    )


def _dims(version: VersionInfo, tensor: TensorInfo) -> tuple[int, ...]:
    return tensor.shape[1:] if version.batches else tensor.shape


def _type(dtype: DType) -> str:
    return _TYPES.get(dtype, f"TYPE_{dtype.name}")


def _statistics(lane: LaneStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=lane.model,
        version=str(lane.version),
        last_inference=lane.last_inference_ms,
        inference_count=lane.inference_count,
        execution_count=lane.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(lane.success),
            fail=_duration(lane.fail),
            queue=_duration(lane.queue),
            compute_infer=_duration(lane.compute_infer),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=rows, compute_infer=_duration(runs))
            for rows, runs in sorted(lane.batches.items())
        ],
    )


def _duration(total: DurationSum) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)
