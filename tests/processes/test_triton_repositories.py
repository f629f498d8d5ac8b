"""Repositories as people have them for Triton, served as they are to Triton's unchanged client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.protos.tfs import example_pb2, serving_pb2
from tests.fixtures import models, triton_repositories
from tests.fixtures.daemon import REPOSITORY, Daemon, running

TOUR = REPOSITORY / "tests" / "fixtures" / "triton_repository_tour.py"
SCRIPT_SECONDS = 100

SCORER = """\
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "colours.txt" }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    triton_repositories.image_classifier(root)
    triton_repositories.text_model(root)
    triton_repositories.two_instances(root)
    scorer = root / "scorer"
    (scorer / "1").mkdir(parents=True)
    models.identity(scorer / "1" / "model.onnx", DType.FP32, ("batch", 3))
    (scorer / "config.pbtxt").write_text(SCORER)
    (scorer / "colours.txt").write_text("red\ngreen\n")
    wrong = root / "wrong"
    (wrong / "1").mkdir(parents=True)
    models.identity(wrong / "1" / "model.onnx", DType.FP32, ("batch", 3))
    (wrong / "config.pbtxt").write_text(SCORER.replace("TYPE_FP32 dims: [ 3 ] }", "TYPE_INT8 dims: [ 3 ] }"))
    (wrong / "colours.txt").write_text("red\n")
    cold = root / "cold"
    cold.mkdir()
    models.gather_out_of_bounds(cold / "model.onnx")
    (cold / "model.toml").write_text('warmup = {file = "warm.npz"}\n')
    np.savez(cold / "warm.npz", x=np.array([7]))
    return root


@pytest.fixture(scope="module")
def daemon(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(repository, folder=tmp_path_factory.mktemp("run")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def tour(daemon: Daemon) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, TOUR, daemon.grpc], check=True, stdout=subprocess.PIPE, timeout=SCRIPT_SECONDS
    )
    seen: dict[str, Any] = json.loads(finished.stdout)
    return seen


def test_classification_is_listed(tour: dict[str, Any]) -> None:
    assert "classification" in tour["extensions"]


def test_an_image_classifier_has_the_shapes_of_its_configuration_and_labels(tour: dict[str, Any]) -> None:
    seen = tour["image_classifier"]
    assert seen["about"] == {
        "versions": ["1"],
        "inputs": {"data_0": [3, 8, 8]},
        "outputs": {"fc6_1": [5]},
    }
    assert seen["scores"] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert seen["top 2"] == ["2.500000:4:horse", "2.000000:3:fish"]
    assert seen["top 100"] == [
        "2.500000:4:horse",
        "2.000000:3:fish",
        "1.500000:2:bird",
        "1.000000:1:dog",
        "0.500000:0:cat",
    ]
    assert seen["datatype 2"] == seen["datatype 100"] == "BYTES"
    assert (
        seen["with a batch dimension"]
        == "input 'data_0' of model 'image_classifier' has shape [1, 3, 8, 8]; expected [3, 8, 8] (-1: any size)"
    )


def test_a_text_model_answers_reshaped_rows_out_of_shared_batches(tour: dict[str, Any]) -> None:
    seen = tour["text_model"]
    assert seen["about"] == {
        "versions": ["1"],
        "inputs": {"TEXT": [-1, 1]},
        "outputs": {"NUMBER": [-1, 1], "ECHO": [-1, 1]},
    }
    assert seen["right"] == 40
    assert seen["classes"] == [["3.000000:0"], ["4.000000:0"]]


def test_two_instances_serve_two_versions(tour: dict[str, Any]) -> None:
    seen = tour["simple"]
    assert seen["about"]["versions"] == ["1", "2"]
    assert (seen["right"], seen["instances"], seen["max_batch_size"], seen["delay"]) == (40, 2, 8, 100)
    assert seen["classes"] == [["32:15", "30:14"]]
    assert seen["other output"] == [[0] * 16]


def test_a_configuration_that_contradicts_its_model_is_one_line(daemon: Daemon, repository: Path) -> None:
    reason = f"{repository}/wrong/config.pbtxt:2: input 'x': data_type is INT8, but the model has FP32"
    daemon.wait_said(reason)
    assert reason.removeprefix(f"{repository}/") in daemon.get("/readyz")[1]
    assert str(repository) not in daemon.get("/readyz")[1]


def test_a_recorded_request_that_fails_keeps_the_model_from_being_served(
    daemon: Daemon, repository: Path
) -> None:
    reason = f"{repository}/cold/warm.npz: warm-up failed: "
    daemon.wait_said(reason)
    assert reason.removeprefix(f"{repository}/") in daemon.get("/readyz")[1]


def test_tensorflow_serving_s_classify_names_classes_by_their_labels(daemon: Daemon) -> None:
    request = serving_pb2.ClassificationRequest()
    request.model_spec.name = "scorer"
    example = request.input.example_list.examples.add()
    example.features.feature["x"].CopyFrom(
        example_pb2.Feature(float_list=example_pb2.FloatList(value=[0.25, 0.5, 1]))
    )
    with grpc.insecure_channel(daemon.grpc) as channel:
        classify: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Classify"
        )
        answer = classify(request.SerializeToString(), timeout=30)
    (row,) = serving_pb2.ClassificationResponse.FromString(answer).result.classifications
    assert [(c.label, c.score) for c in row.classes] == [("red", 0.25), ("green", 0.5), ("2", 1.0)]
