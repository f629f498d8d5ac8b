"""What is known of a model: shown, compared with inputs, and used to name one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from predictd.client import (
    InvalidRequestError,
    Label,
    Model,
    ModelVersion,
    NotFoundError,
    Retries,
    Split,
    TensorSpec,
    UnavailableError,
)
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.prediction_service import FAILED_MODEL, FakeService, in_order, make_model, serving

X = TensorSpec("x", "FP32", (-1, 3))
HINT = TensorSpec("hint", "INT64", (), optional=True)


def version(number: int, state: str = "READY", *inputs: TensorSpec) -> ModelVersion:
    return ModelVersion(number, state, "", "onnxruntime", inputs, (X,) if inputs else (), 32, ())


MODEL = Model(
    "m",
    (version(3, "LOADING"), version(2, "READY", X, HINT), version(1, "READY", X, X)),
    2,
    (Label("old", 1, "RUN_TIME"),),
)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' of model 'm' is missing; expected x FP32[-1, 3]"),
        ({"x": np.zeros((1, 3)), "hint": 1}, "input 'x' of model 'm' has type FP64; expected FP32"),
        (
            {"x": np.zeros((1, 2), np.float32)},
            "input 'x' of model 'm' has shape [1, 2]; expected [-1, 3] (-1: any size)",
        ),
        ({"z": 1}, "unexpected input 'z' for model 'm'; it takes 'x', 'hint'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_the_daemons_words(
    inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        MODEL.check(inputs)
    assert caught.value.message == message
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_inputs_that_fit_and_versions_that_are_not_known_pass() -> None:
    MODEL.check({"x": np.zeros((5, 3), np.float32)})
    MODEL.check({"x": np.zeros((5, 3), np.float32), "hint": np.int64(1)})
    MODEL.check({"what": 1}, version=3)
    MODEL.check({"what": 1}, label="future")
    with pytest.raises(InvalidRequestError):
        MODEL.check({"what": 1}, label="old")


def test_inputs_may_fit_any_version_that_a_split_may_choose() -> None:
    wide = TensorSpec("x", "FP32", (-1, 5))
    split = Model("m", (version(3, "READY", wide), version(2, "READY", X), version(1, "LOADING")), 2)
    split = replace(split, split=Split({3: 10, 2: 90}, "RUN_TIME"))
    for width in (3, 5):
        split.check({"x": np.zeros((1, width), np.float32)})
    with pytest.raises(InvalidRequestError, match=r"has shape \[1, 4\]; expected \[-1, 3\]"):
        split.check({"x": np.zeros((1, 4), np.float32)})
    with pytest.raises(InvalidRequestError, match=r"expected \[-1, 5\]"):
        split.check({"x": np.zeros((1, 3), np.float32)}, version=3)
    replace(split, split=Split({1: 1, 2: 99}, "RUN_TIME")).check({"what": 1})
    with pytest.raises(InvalidRequestError):
        replace(split, split=Split({1: 0, 2: 100}, "RUN_TIME")).check({"what": 1})


def test_a_model_is_shown_with_its_signature() -> None:
    assert repr(MODEL) == (
        "<Model 'm', default version 2\n"
        "  version 3: loading, onnxruntime, batches of 32\n"
        "  version 2: ready, onnxruntime, batches of 32\n"
        "    in   x FP32[-1, 3]\n"
        "    in   hint INT64[] (optional)\n"
        "    out  x FP32[-1, 3]\n"
        "  version 1: ready, onnxruntime, batches of 32\n"
        "    in   x FP32[-1, 3]\n"
        "    in   x FP32[-1, 3]\n"
        "    out  x FP32[-1, 3]\n"
        "  label old: version 1>"
    )


def test_an_array_alone_is_the_only_input_and_its_name_is_asked_for_once(make_client: Any) -> None:
    hint = v1.TensorSpec(name="hint", dtype=v1.INT64, optional=True)
    x = v1.TensorSpec(name="x", dtype=v1.FP32, shape=[-1, 3])
    service = FakeService(make_model(inputs=(x, hint)), FAILED_MODEL, stream=in_order)
    array = np.zeros((1, 3), np.float32)
    with serving(service) as target, make_client(target) as client:
        for answer in (client.predict("echo", array), *client.predict_many("echo", [array, {"x": array}])):
            assert list(answer.outputs) == ["x"]
    assert service.looked_up == ["echo"]


def test_the_name_of_an_input_is_asked_for_until_there_is_one(make_client: Any) -> None:
    array = np.zeros((1, 3), np.float32)
    loading = v1.Model(name="echo", versions=[v1.ModelVersion(version=3, state=v1.LOADING)])
    service = FakeService(loading, FAILED_MODEL)
    with serving(service) as target, make_client(target, retries=Retries(attempts=2)) as client:
        with pytest.raises(UnavailableError, match="no version of model 'broken' is loaded"):
            client.predict("broken", array)
        with pytest.raises(UnavailableError, match="no version of model 'echo' is loaded"):
            client.predict(client.model("echo"), array)
        (failed,) = client.predict_many("echo", [array])
        assert isinstance(failed, UnavailableError)
        service.models = (make_model(),)
        assert list(client.predict("echo", array).outputs) == ["x"]
    assert service.looked_up == ["broken", "broken", "echo", "echo", "echo", "echo"]


def test_the_daemon_says_what_is_wrong_with_a_version_whose_inputs_nobody_knows(make_client: Any) -> None:
    array = np.zeros((1, 3), np.float32)
    service = FakeService(make_model())
    service.refusals = [(grpc.StatusCode.NOT_FOUND, ())]
    with serving(service) as target, make_client(target) as client:
        with pytest.raises(NotFoundError, match="not now"):
            client.predict("echo", array, version=4)
        service.models = (make_model(version=4),)
        assert client.predict("echo", array, version=4).version == 4
        client.predict("echo", array)
    assert service.looked_up == ["echo"] * 2


def test_a_model_in_place_of_its_name_is_compared_with_before_anything_is_sent(make_client: Any) -> None:
    service = FakeService(make_model())
    with serving(service) as target, make_client(target) as client:
        model = client.model("echo")
        assert client.predict(model, np.ones((1, 3), np.float32)).model == "echo"
        with pytest.raises(InvalidRequestError, match="has type FP64"):
            client.predict(model, np.ones((1, 3)))
        (answer,) = client.predict_many(model, [np.ones((1, 3))])
        assert isinstance(answer, InvalidRequestError)
    assert len(service.requests) == 1
