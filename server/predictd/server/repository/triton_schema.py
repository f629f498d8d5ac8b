"""The fields of Triton's ModelConfig, as its model_config.proto declares them.

Messages that predictd only mentions, in a warning or an error, are not read any further.
"""

from __future__ import annotations

from predictd.server.repository.policy_text import VERSION_POLICY
from predictd.server.repository.protoschema import (
    BOOL,
    INT32,
    INT64,
    OPAQUE,
    STRING,
    UINT32,
    UINT64,
    Schema,
    enumeration,
    many,
    mapping,
    one,
)

_DATA_TYPE = enumeration(
    TYPE_INVALID=0,
    TYPE_BOOL=1,
    TYPE_UINT8=2,
    TYPE_UINT16=3,
    TYPE_UINT32=4,
    TYPE_UINT64=5,
    TYPE_INT8=6,
    TYPE_INT16=7,
    TYPE_INT32=8,
    TYPE_INT64=9,
    TYPE_FP16=10,
    TYPE_FP32=11,
    TYPE_FP64=12,
    TYPE_STRING=13,
    TYPE_BF16=14,
)
_RESHAPE = Schema({"shape": many(INT64)})
_INPUT = Schema(
    {
        "name": one(STRING),
        "data_type": one(_DATA_TYPE),
        "format": one(enumeration(FORMAT_NONE=0, FORMAT_NHWC=1, FORMAT_NCHW=2)),
        "dims": many(INT64),
        "reshape": one(_RESHAPE),
        "is_shape_tensor": one(BOOL),
        "allow_ragged_batch": one(BOOL),
        "optional": one(BOOL),
        "is_non_linear_format_io": one(BOOL),
    }
)
_OUTPUT = Schema(
    {
        "name": one(STRING),
        "data_type": one(_DATA_TYPE),
        "dims": many(INT64),
        "reshape": one(_RESHAPE),
        "label_filename": one(STRING),
        "is_shape_tensor": one(BOOL),
        "is_non_linear_format_io": one(BOOL),
    }
)
_OPTIMIZATION = Schema(
    {
        "graph": one(Schema({"level": one(INT32)})),
        "priority": one(enumeration(PRIORITY_DEFAULT=0, PRIORITY_MAX=1, PRIORITY_MIN=2)),
        "cuda": one(OPAQUE),
        "execution_accelerators": one(OPAQUE),
        "input_pinned_memory": one(Schema({"enable": one(BOOL)})),
        "output_pinned_memory": one(Schema({"enable": one(BOOL)})),
        "gather_kernel_buffer_threshold": one(UINT32),
        "eager_batching": one(BOOL),
    }
)
_QUEUE_POLICY = Schema(
    {
        "timeout_action": one(enumeration(REJECT=0, DELAY=1)),
        "default_timeout_microseconds": one(UINT64),
        "allow_timeout_override": one(BOOL),
        "max_queue_size": one(UINT32),
    }
)
_DYNAMIC_BATCHING = Schema(
    {
        "preferred_batch_size": many(INT32),
        "max_queue_delay_microseconds": one(UINT64),
        "preserve_ordering": one(BOOL),
        "priority_levels": one(UINT64),
        "default_priority_level": one(UINT64),
        "default_queue_policy": one(_QUEUE_POLICY),
        "priority_queue_policy": mapping(UINT64, _QUEUE_POLICY),
    }
)
_INSTANCE_GROUP = Schema(
    {
        "name": one(STRING),
        "kind": one(enumeration(KIND_AUTO=0, KIND_GPU=1, KIND_CPU=2, KIND_MODEL=3)),
        "count": one(INT32),
        "rate_limiter": one(OPAQUE),
        "gpus": many(INT32),
        "secondary_devices": many(OPAQUE),
        "profile": many(STRING),
        "passive": one(BOOL),
        "host_policy": one(STRING),
    }
)
_WARMUP_INPUT = Schema(
    {
        "data_type": one(_DATA_TYPE),
        "dims": many(INT64),
        "zero_data": one(BOOL),
        "random_data": one(BOOL),
        "input_data_file": one(STRING),
    },
    oneofs=(("zero_data", "random_data", "input_data_file"),),
)
_WARMUP = Schema(
    {
        "name": one(STRING),
        "batch_size": one(UINT32),
        "inputs": mapping(STRING, _WARMUP_INPUT),
        "count": one(UINT32),
    }
)
_AGENT = Schema({"name": one(STRING), "parameters": mapping(STRING, STRING)})

MODEL_CONFIG = Schema(
    {
        "name": one(STRING),
        "platform": one(STRING),
        "backend": one(STRING),
        "runtime": one(STRING),
        "version_policy": one(VERSION_POLICY),
        "max_batch_size": one(INT32),
        "input": many(_INPUT),
        "output": many(_OUTPUT),
        "batch_input": many(OPAQUE),
        "batch_output": many(OPAQUE),
        "optimization": one(_OPTIMIZATION),
        "dynamic_batching": one(_DYNAMIC_BATCHING),
        "sequence_batching": one(OPAQUE),
        "ensemble_scheduling": one(OPAQUE),
        "instance_group": many(_INSTANCE_GROUP),
        "default_model_filename": one(STRING),
        "cc_model_filenames": mapping(STRING, STRING),
        "metric_tags": mapping(STRING, STRING),
        "parameters": mapping(STRING, Schema({"string_value": one(STRING)})),
        "model_warmup": many(_WARMUP),
        "model_operations": one(Schema({"op_library_filename": many(STRING)})),
        "model_transaction_policy": one(Schema({"decoupled": one(BOOL)})),
        "model_repository_agents": one(Schema({"agents": many(_AGENT)})),
        "response_cache": one(Schema({"enable": one(BOOL)})),
        "model_metrics": one(OPAQUE),
    },
    oneofs=(("dynamic_batching", "sequence_batching", "ensemble_scheduling"),),
)
