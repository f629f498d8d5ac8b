"""Real requests of every method of every service, to be made wrong."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.tfs import serving_pb2 as tfs
from predictd.protos.tfs import tensor_pb2
from predictd.protos.v1 import control_pb2, predictd_pb2, routing_pb2

MODEL = "m"
_X = np.arange(6, dtype=np.float32).reshape(2, 3)
_TEXTS = b"".join(struct.pack("<I", len(text)) + text for text in (b"one", b""))

PREDICTD = "/predictd.v1.PredictionService/"
OIP = "/inference.GRPCInferenceService/"
TFS = "/tensorflow.serving.PredictionService/"
TFS_MODELS = "/tensorflow.serving.ModelService/"


def _predict() -> Sequence[Message]:
    plain = predictd_pb2.PredictRequest(model=MODEL, id="7", outputs=["y"], priority=1, version=1)
    plain.inputs.add(name="x", dtype=predictd_pb2.FP32, shape=_X.shape, data=_X.tobytes())
    texts = predictd_pb2.PredictRequest(model=MODEL, label="stable")
    texts.inputs.add(name="x", dtype=predictd_pb2.FP32, shape=_X.shape, data=_X.tobytes())
    texts.inputs.add(name="s", dtype=predictd_pb2.BYTES, shape=[2], data=_TEXTS)
    empty = predictd_pb2.PredictRequest(model=MODEL)
    empty.inputs.add(name="x", dtype=predictd_pb2.FP32, shape=[0, 3])
    return plain, texts, empty


def _infer() -> Sequence[Message]:
    raw = oip.ModelInferRequest(model_name=MODEL, model_version="1", id="7")
    raw.inputs.add(name="x", datatype="FP32", shape=_X.shape)
    raw.inputs.add(name="s", datatype="BYTES", shape=[2])
    raw.raw_input_contents.extend([_X.tobytes(), _TEXTS])
    raw.parameters["priority"].int64_param = 1
    raw.parameters["timeout"].int64_param = 10**6
    raw.parameters["mine"].string_param = "anything"
    raw.outputs.add(name="y").parameters["classification"].int64_param = 2
    typed = oip.ModelInferRequest(model_name=MODEL)
    typed.inputs.add(name="x", datatype="FP32", shape=_X.shape).contents.fp32_contents.extend(range(6))
    typed.inputs.add(name="s", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b"bc"])
    typed.inputs.add(name="n", datatype="INT64", shape=[2, 1]).contents.int64_contents.extend([1, -(2**63)])
    small = oip.ModelInferRequest(model_name=MODEL)
    for dtype, field, value in (
        ("INT8", "int_contents", -1),
        ("UINT16", "uint_contents", 1),
        ("UINT64", "uint64_contents", 2**64 - 1),
        ("FP64", "fp64_contents", 0.5),
        ("BOOL", "bool_contents", True),
    ):
        tensor = small.inputs.add(name=dtype, datatype=dtype, shape=[1])
        getattr(tensor.contents, field).append(value)
    return raw, typed, small


def _tfs_predict() -> Sequence[Message]:
    content = tfs.PredictRequest(output_filter=["y"])
    content.model_spec.name = MODEL
    content.model_spec.version.value = 1
    content.model_spec.signature_name = "serving_default"
    tensor = content.inputs["x"]
    tensor.dtype = tensor_pb2.DT_FLOAT
    _dims(tensor, 2, 3)
    tensor.tensor_content = _X.tobytes()
    lists = tfs.PredictRequest()
    lists.model_spec.name, lists.model_spec.version_label = MODEL, "stable"
    for name, dtype, field, value, *row in (
        ("x", tensor_pb2.DT_FLOAT, "float_val", 1.5, 3),
        ("s", tensor_pb2.DT_STRING, "string_val", b"text"),
        ("n", tensor_pb2.DT_INT64, "int64_val", -1, 1),
        ("FP16", tensor_pb2.DT_HALF, "half_val", 15360),
        ("UINT8", tensor_pb2.DT_UINT8, "int_val", 300),
        ("BOOL", tensor_pb2.DT_BOOL, "bool_val", True),
        ("FP64", tensor_pb2.DT_DOUBLE, "double_val", 2.5),
    ):
        tensor = lists.inputs[name]
        tensor.dtype = dtype
        _dims(tensor, 2, *row)
        getattr(tensor, field).append(value)
    strings = tfs.PredictRequest()
    strings.model_spec.name = MODEL
    strings.inputs["s"].dtype = tensor_pb2.DT_STRING
    _dims(strings.inputs["s"], 2)
    strings.inputs["s"].tensor_content = b"\x01\x02abc"
    return content, lists, strings


def _dims(tensor: tensor_pb2.TensorProto, *sizes: int) -> None:
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)


def _examples() -> Sequence[Message]:
    listed = tfs.ClassificationRequest()
    listed.model_spec.name = MODEL
    for _ in range(2):
        feature = listed.input.example_list.examples.add().features.feature
        feature["x"].float_list.value.extend([1.0, 2.0, 3.0])
        feature["s"].bytes_list.value.append(b"text")
        feature["n"].int64_list.value.append(-7)
    context = tfs.ClassificationRequest()
    context.model_spec.name = MODEL
    shared = context.input.example_list_with_context
    shared.context.features.feature["x"].float_list.value.extend([1.0, 2.0, 3.0])
    shared.examples.add().features.feature["n"].int64_list.value.append(2**62)
    shared.examples.add().features.feature["n"].int64_list.value.append(-(2**63))
    return listed, context


def _tfs_others() -> Mapping[str, Sequence[Message]]:
    metadata = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = MODEL
    status = tfs.GetModelStatusRequest()
    status.model_spec.name = MODEL
    status.model_spec.version.value = 1
    reload = tfs.ReloadConfigRequest()
    config = reload.config.model_config_list.config.add(
        name=MODEL, base_path="/models/m", model_platform="tensorflow", version_labels={"stable": 1}
    )
    config.model_version_policy.specific.versions.extend([1, 2])
    return {
        TFS + "GetModelMetadata": [metadata],
        TFS_MODELS + "GetModelStatus": [status],
        TFS_MODELS + "HandleReloadConfigRequest": [reload],
    }


def _oip_others() -> Mapping[str, Sequence[Message]]:
    load = oip.RepositoryModelLoadRequest(model_name="nobody")
    load.parameters["config"].string_param = '{"max_batch_size": 8, "instance_group": [{"count": 1}]}'
    unload = oip.RepositoryModelUnloadRequest(model_name="nobody")
    unload.parameters["unload_dependents"].bool_param = True
    settings = oip.LogSettingsRequest()
    settings.settings["log_verbose_level"].uint32_param = 0
    return {
        OIP + "ServerLive": [oip.ServerLiveRequest()],
        OIP + "ServerReady": [oip.ServerReadyRequest()],
        OIP + "ServerMetadata": [oip.ServerMetadataRequest()],
        OIP + "ModelReady": [oip.ModelReadyRequest(name=MODEL, version="1")],
        OIP + "ModelMetadata": [oip.ModelMetadataRequest(name=MODEL)],
        OIP + "ModelConfig": [oip.ModelConfigRequest(name=MODEL, version="1")],
        OIP + "ModelStatistics": [oip.ModelStatisticsRequest(name=MODEL)],
        OIP + "RepositoryIndex": [oip.RepositoryIndexRequest(ready=True)],
        OIP + "RepositoryModelLoad": [load],
        OIP + "RepositoryModelUnload": [unload],
        OIP + "LogSettings": [settings],
    }


def _control() -> Mapping[str, Sequence[Message]]:
    service = "/predictd.v1.ControlService/"
    routing = "/predictd.v1.RoutingService/"
    split = routing_pb2.SetSplitRequest(model="nobody")
    split.shares.add(version=1, percent=50)
    split.shares.add(version=2, percent=50)
    return {
        service + "LoadModel": [control_pb2.LoadModelRequest(model="nobody", config='{"max_batch_size": 4}')],
        service + "UnloadModel": [control_pb2.UnloadModelRequest(model="nobody")],
        service + "Reload": [control_pb2.ReloadRequest()],
        routing + "SetLabel": [routing_pb2.SetLabelRequest(model="nobody", label="a", version=1)],
        routing + "SetSplit": [split],
    }


def _reflection() -> Sequence[Message]:
    request = reflection_pb2.ServerReflectionRequest
    extension = reflection_pb2.ExtensionRequest(
        containing_type="predictd.v1.PredictRequest", extension_number=9
    )
    return (
        request(list_services=""),
        request(file_containing_symbol="predictd.v1.PredictionService"),
        request(file_by_filename="predictd/protos/v1/predictd.proto"),
        request(file_containing_extension=extension),
        request(all_extension_numbers_of_type="inference.ModelInferRequest"),
    )


_MESSAGES: Mapping[str, Sequence[Message]] = {
    PREDICTD + "Predict": _predict(),
    PREDICTD + "PredictStream": _predict(),
    PREDICTD + "ListModels": [predictd_pb2.ListModelsRequest()],
    PREDICTD + "GetModel": [predictd_pb2.GetModelRequest(model=MODEL)],
    OIP + "ModelInfer": _infer(),
    OIP + "ModelStreamInfer": _infer(),
    TFS + "Predict": _tfs_predict(),
    TFS + "Classify": _examples(),
    TFS + "Regress": _examples(),
    **_tfs_others(),
    **_oip_others(),
    **_control(),
    "/grpc.health.v1.Health/Check": [health_pb2.HealthCheckRequest(service=MODEL)],
    "/grpc.health.v1.Health/Watch": [health_pb2.HealthCheckRequest(service="")],
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _reflection(),
}
# By method: messages that it takes.
MESSAGES: Mapping[str, Sequence[bytes]] = {
    method: [message.SerializeToString(deterministic=True) for message in messages]
    for method, messages in _MESSAGES.items()
}
WORDS = tuple(
    itertools.chain(
        (MODEL.encode(), b"x", b"s", b"n", b"y", b"priority", b"timeout", b"classification", b"sequence_id"),
        (b"shared_memory_region", b"triton_", b"signature_def", b"serving_default", b"stable", b"config"),
        (dtype.name.encode() for dtype in DType),
    )
)
