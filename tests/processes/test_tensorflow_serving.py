"""A real daemon, asked as TensorFlow Serving's clients ask: by that project's public messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from predictd.protos.tfs import serving_pb2 as pb
from predictd.protos.tfs import tensor_pb2
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running

M = TypeVar("M", bound=Message)
PREDICTION = "tensorflow.serving.PredictionService"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    models.affine(root / "affine.onnx", scale=2.0, bias=1.0, width=4)
    models.string_identity(root / "text.onnx")
    return root


@pytest.fixture(scope="module")
def daemon(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(repository, folder=tmp_path_factory.mktemp("run")) as one:
        yield one


def ask(daemon: Daemon, method: str, request: Message, answer: type[M]) -> M:
    with grpc.insecure_channel(daemon.grpc) as channel:
        call = channel.unary_unary(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=20)


def shape(*sizes: int) -> tensor_pb2.TensorShapeProto:
    return tensor_pb2.TensorShapeProto(dim=[tensor_pb2.TensorShapeProto.Dim(size=size) for size in sizes])


def floats(rows: int, values: list[float]) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto(dtype=tensor_pb2.DT_FLOAT, tensor_shape=shape(rows, 4), float_val=values)


def predict(daemon: Daemon, request: pb.PredictRequest) -> pb.PredictResponse:
    return ask(daemon, f"{PREDICTION}/Predict", request, pb.PredictResponse)


def test_values_in_a_list_are_answered_in_a_list(daemon: Daemon) -> None:
    request = pb.PredictRequest(
        model_spec=pb.ModelSpec(name="affine"), inputs={"x": floats(2, list(range(8)))}
    )
    answer = predict(daemon, request)
    assert list(answer.outputs["y"].float_val) == [x * 2 + 1 for x in range(8)]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("affine", 1)
    assert answer.model_spec.signature_name == "serving_default"


def test_the_last_of_too_few_values_is_repeated(daemon: Daemon) -> None:
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="affine"), inputs={"x": floats(1, [1, 2])})
    assert list(predict(daemon, request).outputs["y"].float_val) == [3, 5, 5, 5]


def test_raw_content_is_read(daemon: Daemon) -> None:
    x = np.array([[1, 2, 3, 4]], np.float32)
    tensor = tensor_pb2.TensorProto(
        dtype=tensor_pb2.DT_FLOAT, tensor_shape=shape(1, 4), tensor_content=x.tobytes()
    )
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="affine"), inputs={"x": tensor})
    assert list(predict(daemon, request).outputs["y"].float_val) == [3, 5, 7, 9]


def test_strings_go_through(daemon: Daemon) -> None:
    metadata = ask(
        daemon,
        f"{PREDICTION}/GetModelMetadata",
        pb.GetModelMetadataRequest(model_spec=pb.ModelSpec(name="text"), metadata_field=["signature_def"]),
        pb.GetModelMetadataResponse,
    )
    signatures = pb.SignatureDefMap()
    assert metadata.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    ((name, info),) = signature.inputs.items()
    (output,) = signature.outputs
    assert info.dtype == tensor_pb2.DT_STRING
    sizes = [2 if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    words = [f"word {at}".encode() for at in range(int(np.prod(sizes)))]
    tensor = tensor_pb2.TensorProto(dtype=tensor_pb2.DT_STRING, tensor_shape=shape(*sizes), string_val=words)
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="text"), inputs={name: tensor})
    assert list(predict(daemon, request).outputs[output].string_val) == words


def test_the_status_of_a_model_is_told(daemon: Daemon) -> None:
    answer = ask(
        daemon,
        "tensorflow.serving.ModelService/GetModelStatus",
        pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="affine")),
        pb.GetModelStatusResponse,
    )
    (status,) = answer.model_version_status
    assert (status.version, status.state) == (1, pb.ModelVersionStatus.AVAILABLE)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (pb.ModelSpec(name="nope"), grpc.StatusCode.NOT_FOUND),
        (pb.ModelSpec(), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ModelSpec(name="affine", version_label="canary"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ModelSpec(name="affine", signature_name="other"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_what_cannot_be_served_has_tensorflow_servings_status(
    daemon: Daemon, spec: pb.ModelSpec, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict(daemon, pb.PredictRequest(model_spec=spec, inputs={"x": floats(1, [1])}))
    assert caught.value.code() is code


def test_content_is_answered_raw_where_the_operator_asks_for_it(repository: Path, tmp_path: Path) -> None:
    with running(repository / "affine.onnx", "--tfs-tensor-content", folder=tmp_path / "run") as daemon:
        request = pb.PredictRequest(
            model_spec=pb.ModelSpec(name="affine"), inputs={"x": floats(1, [1, 2, 3, 4])}
        )
        (output,) = predict(daemon, request).outputs.values()
    assert np.frombuffer(output.tensor_content, np.float32).tolist() == [3, 5, 7, 9]
