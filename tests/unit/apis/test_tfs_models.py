from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from predictd.protos.tfs import error_codes_pb2, tensor_pb2
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.frontend.apis import tfs
from tests.unit.apis.test_fake_core import ECHO_1, serving, unary
from tests.unit.apis.tfs_calls import LATEST, RoutedCore, ask, labelled, refused, specific

if TYPE_CHECKING:
    from google.protobuf.message import Message


def test_metadata_is_one_signature() -> None:
    request = pb.GetModelMetadataRequest(model_spec=LATEST, metadata_field=["signature_def"])
    response = ask("GetModelMetadata", request, pb.GetModelMetadataResponse)
    assert response.model_spec == specific("echo", 1)
    assert list(response.metadata) == ["signature_def"]
    packed = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = pb.SignatureDefMap.FromString(packed.value).signature_def
    assert list(signatures) == ["serving_default"]
    signature = signatures["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    for tensors in (signature.inputs, signature.outputs):
        described = {
            name: (tensor.name, tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim])
            for name, tensor in tensors.items()
        }
        assert described == {
            "x": ("x", tensor_pb2.DT_FLOAT, [-1, 3]),
            "s": ("s", tensor_pb2.DT_STRING, [-1]),
        }


def test_metadata_of_scalars_and_fixed_shapes() -> None:
    request = pb.GetModelMetadataRequest(
        model_spec=pb.ModelSpec(name="single"), metadata_field=["signature_def"]
    )
    packed = ask("GetModelMetadata", request, pb.GetModelMetadataResponse).metadata["signature_def"]
    signature = pb.SignatureDefMap.FromString(packed.value).signature_def["serving_default"]
    assert (signature.inputs["x"].dtype, signature.outputs["y"].dtype) == (
        tensor_pb2.DT_BFLOAT16,
        tensor_pb2.DT_INT8,
    )
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [2, 2]
    assert signature.outputs["y"].HasField("tensor_shape")
    assert not signature.outputs["y"].tensor_shape.dim


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (pb.GetModelMetadataRequest(metadata_field=["signature_def"]), "Missing ModelSpec"),
        (
            pb.GetModelMetadataRequest(model_spec=LATEST),
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            pb.GetModelMetadataRequest(model_spec=LATEST, metadata_field=["signature_def", "other"]),
            "Metadata field other is not supported",
        ),
        (
            pb.GetModelMetadataRequest(model_spec=pb.ModelSpec(), metadata_field=["signature_def"]),
            "ModelSpec has no name specified.",
        ),
    ],
)
def test_metadata_of_another_kind_is_refused(request_: Message, details: str) -> None:
    assert refused("GetModelMetadata", request_) == (grpc.StatusCode.INVALID_ARGUMENT, details)


def status_of(spec: pb.ModelSpec) -> list[tuple[int, int, int, str]]:
    async def scenario() -> bytes:
        async with serving(*tfs.handlers(RoutedCore())) as channel:
            request = pb.GetModelStatusRequest(model_spec=spec).SerializeToString()
            return await unary(channel, f"/{tfs.MODEL_SERVICE}/GetModelStatus")(request)

    response = pb.GetModelStatusResponse.FromString(asyncio.run(scenario()))
    assert all(version.HasField("status") for version in response.model_version_status)
    return [
        (version.version, version.state, version.status.error_code, version.status.error_message)
        for version in response.model_version_status
    ]


def test_status_lists_all_versions_or_the_chosen_one() -> None:
    states = pb.ModelVersionStatus
    every = [(3, states.LOADING, 0, ""), (2, states.UNLOADING, 0, ""), (1, states.AVAILABLE, 0, "")]
    assert status_of(LATEST) == every
    assert status_of(specific("echo", 0)) == every
    assert status_of(specific("echo", 2)) == every[1:2]
    assert status_of(labelled("echo", ECHO_1.labels[0])) == every[2:]


def test_status_says_why_a_version_failed() -> None:
    assert status_of(pb.ModelSpec(name="broken")) == [
        (1, pb.ModelVersionStatus.END, error_codes_pb2.UNKNOWN, "model.onnx: no such operator")
    ]


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (pb.GetModelStatusRequest(), grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            pb.GetModelStatusRequest(model_spec=pb.ModelSpec()),
            grpc.StatusCode.INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        ),
        (
            pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="nope")),
            grpc.StatusCode.NOT_FOUND,
            "Could not find any versions of model nope",
        ),
        (
            pb.GetModelStatusRequest(model_spec=specific("nope", 1)),
            grpc.StatusCode.NOT_FOUND,
            "Could not find version 1 of model nope",
        ),
        (
            pb.GetModelStatusRequest(model_spec=specific("echo", 9)),
            grpc.StatusCode.NOT_FOUND,
            "Could not find version 9 of model echo",
        ),
        (
            pb.GetModelStatusRequest(model_spec=labelled("echo", "canary")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        ),
        (
            pb.GetModelStatusRequest(model_spec=labelled("nope", "canary")),
            grpc.StatusCode.NOT_FOUND,
            "Could not find any versions of model nope",
        ),
    ],
)
def test_status_of_what_there_is_not(request_: Message, code: grpc.StatusCode, details: str) -> None:
    assert refused("GetModelStatus", request_, service=tfs.MODEL_SERVICE) == (code, details)
