from __future__ import annotations

import grpc
import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.frontend.apis.tfs_scores import classifying
from predictd.server.frontend.inference import InferResponse, OutputTensor, TensorInfo, VersionInfo
from tests.unit.apis.tfs_calls import RoutedCore, Shape, ask, refused, rows, signed, specific


def test_classify_gives_a_score_for_each_class_of_each_example() -> None:
    core = RoutedCore()
    scores = np.array([[0.5, 0.25, 0.25], [0, 1, 0]], np.float32)
    core.scores = OutputTensor("y", DType.FP32, (2, 3), memoryview(scores.tobytes()))
    request = pb.ClassificationRequest(model_spec=pb.ModelSpec(name="classes"), input=rows((1, 2), (3, 4)))
    response = ask("Classify", request, pb.ClassificationResponse, core)
    assert response.model_spec == pb.ModelSpec(
        name="classes", version=specific("", 4).version, signature_name="serving_default"
    )
    assert [[(c.label, c.score) for c in row.classes] for row in response.result.classifications] == [
        [("0", 0.5), ("1", 0.25), ("2", 0.25)],
        [("0", 0), ("1", 1), ("2", 0)],
    ]
    (seen,) = core.seen
    (tensor,) = seen.request.inputs
    assert (seen.request.version, tensor.shape) == (4, (2, 2))
    assert np.frombuffer(tensor.data, np.float32).tolist() == [1, 2, 3, 4]


def test_classes_are_named_by_their_labels_and_by_their_index_without_one() -> None:
    scores = np.array([[0.5, 0.25, 0.25]], np.float32)
    output = OutputTensor("y", DType.FP32, (1, 3), scores.tobytes())
    for labels, names in (
        (("cat", "", "dog", "too many"), ["cat", "1", "dog"]),
        (("cat",), ["cat", "1", "2"]),
    ):
        info = TensorInfo("y", DType.FP32, (-1, 3), labels=labels)
        encode = classifying(VersionInfo(1, "READY", outputs=(info,), batches=True))
        data = encode(InferResponse("m", 1, [output], 0, 0, 1), 1)
        (row,) = pb.ClassificationResponse.FromString(data).result.classifications
        assert [c.label for c in row.classes] == names


@pytest.mark.parametrize(("model", "shape"), [("flat", (2,)), ("column", (2, 1))])
def test_regress_gives_a_number_for_each_example(model: str, shape: Shape) -> None:
    core = RoutedCore()
    core.scores = OutputTensor("y", DType.FP32, shape, np.array([1.5, -2], np.float32).tobytes())
    request = pb.RegressionRequest(model_spec=pb.ModelSpec(name=model), input=rows((1, 2), (3, 4)))
    response = ask("Regress", request, pb.RegressionResponse, core)
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (4, "serving_default")
    assert [regression.value for regression in response.result.regressions] == [1.5, -2]


@pytest.mark.parametrize(
    ("method", "models", "kind", "name"),
    [
        ("Classify", ["flat", "image", "integers", "two", "single"], "classification", "classify"),
        ("Regress", ["classes", "image", "integers", "two", "single"], "regression", "regress"),
    ],
)
def test_a_model_without_the_right_single_output_is_refused(
    method: str, models: list[str], kind: str, name: str
) -> None:
    details = f"Expected {kind} signature method_name to be tensorflow/serving/{name}. "
    details += "Was: tensorflow/serving/predict"
    for model in models:
        request = pb.ClassificationRequest(model_spec=pb.ModelSpec(name=model), input=rows((1, 2)))
        assert refused(method, request) == (grpc.StatusCode.INVALID_ARGUMENT, details)


@pytest.mark.parametrize(("method", "model"), [("Classify", "classes"), ("Regress", "flat")])
def test_requests_without_a_known_signature_or_examples_are_refused(method: str, model: str) -> None:
    request = pb.ClassificationRequest(model_spec=signed(model, "other"), input=rows((1, 2)))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(method, request) == (invalid, "No signature was found with the name: other")
    request = pb.ClassificationRequest(model_spec=pb.ModelSpec(name=model))
    assert refused(method, request) == (invalid, "Input is empty.")


@pytest.mark.parametrize(
    ("method", "model", "shape", "details"),
    [
        ("Classify", "classes", (6,), "Expected Tensor shape: [batch_size num_classes] but got [6]"),
        ("Classify", "classes", (2, 3), "Expected scores output batch size of 1. Got: 2"),
        (
            "Regress",
            "column",
            (1, 2),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1, 2]",
        ),
        ("Regress", "flat", (2,), "Input batch size did not match output batch size: 1 vs. 2"),
    ],
)
def test_an_output_that_is_not_one_row_an_example_is_refused(
    method: str, model: str, shape: Shape, details: str
) -> None:
    core = RoutedCore()
    core.scores = OutputTensor("y", DType.FP32, shape, bytes(4 * int(np.prod(shape))))
    request = pb.ClassificationRequest(model_spec=pb.ModelSpec(name=model), input=rows((1, 2)))
    assert refused(method, request, core) == (grpc.StatusCode.INVALID_ARGUMENT, details)
