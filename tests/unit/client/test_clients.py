"""Both clients, with one semantics, against a service that echoes and misbehaves."""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import grpc
import numpy as np
import pytest

from predictd.client import (
    AsyncClient,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    Label,
    Model,
    ModelVersion,
    NotFoundError,
    OverloadedError,
    PredictdError,
    Prediction,
    RequestCancelledError,
    Split,
    TensorSpec,
    Timing,
    UnavailableError,
    UnsupportedError,
)
from predictd.protos.v1 import control_pb2 as control
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing
from tests.fixtures.prediction_service import FAILED_MODEL, PUSHBACK_MS, FakeService, make_model, serving

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_prediction_carries_everything_that_the_daemon_said(make_client: Any) -> None:
    service = FakeService()
    with serving(service) as target, make_client(target) as client:
        prediction: Prediction = client.predict("echo", {"x": X, "s": ["a", "b"]})
    assert list(prediction.outputs) == ["x", "s"]
    np.testing.assert_array_equal(prediction.outputs["x"], X)
    assert prediction.outputs["s"].tolist() == [b"a", b"b"]
    assert prediction.dtypes == {"x": "FP32", "s": "BYTES"}
    assert (prediction.model, prediction.version) == ("echo", 3)
    assert prediction.timing == Timing(queue_seconds=0.0015, compute_seconds=2.0, batch_rows=4)


@pytest.mark.parametrize(
    ("model", "priority", "told"),
    [
        ("echo", 0, {"predictd-model": "echo"}),
        ("echo", 3, {"predictd-model": "echo", "predictd-priority": "3"}),
        ("modèle", 3, {}),
        (" echo", 0, {}),
        ("a\nb", 0, {}),
    ],
)
def test_the_daemon_is_told_at_once_what_a_request_is_for(
    make_client: Any, model: str, priority: int, told: dict[str, str]
) -> None:
    service = FakeService()
    with serving(service) as target, make_client(target) as client:
        client.predict(model, {"x": X}, priority=priority)
    assert service.told == [told]
    assert service.requests[0].model == model


def test_a_request_carries_everything_that_the_caller_said(make_client: Any) -> None:
    service = FakeService()
    with serving(service) as target, make_client(target) as client:
        client.predict("echo", {"x": X}, outputs=["x"], version=7, priority=1, id="me")
        client.predict("echo", {"x": X}, label="stable")
        client.predict("echo", {"x": X})
    first, second, third = service.requests
    assert (first.model, first.id, first.version, first.priority) == ("echo", "me", 7, 1)
    assert list(first.outputs) == ["x"]
    assert second.label == "stable"
    assert third.WhichOneof("version_choice") is None


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("NOT_FOUND", NotFoundError),
        ("UNAVAILABLE", UnavailableError),
        ("RESOURCE_EXHAUSTED", OverloadedError),
        ("DEADLINE_EXCEEDED", DeadlineExceededError),
        ("UNIMPLEMENTED", UnsupportedError),
        ("CANCELLED", RequestCancelledError),
        ("INTERNAL", InternalError),
        ("DATA_LOSS", PredictdError),
    ],
)
def test_a_status_is_a_typed_error(make_client: Any, code: str, error: type[PredictdError]) -> None:
    with (
        serving(FakeService()) as target,
        make_client(target) as client,
        pytest.raises(error, match=r"^no: 17$") as caught,
    ):
        client.predict(f"fail-{code}", {"x": X}, id="17")
    assert type(caught.value) is error
    assert caught.value.code.name == code


def test_an_overloaded_daemon_says_when_to_come_back(make_client: Any) -> None:
    with (
        serving(FakeService()) as target,
        make_client(target) as client,
        pytest.raises(OverloadedError) as caught,
    ):
        client.predict("fail-RESOURCE_EXHAUSTED", {"x": X})
    assert caught.value.retry_after_seconds == PUSHBACK_MS / 1000


def test_a_silent_daemon_runs_into_the_deadline_of_the_call(make_client: Any) -> None:
    service = FakeService()
    with serving(service) as target, make_client(target) as client:
        # On a busy machine a short one is over before the daemon has heard of the call.
        for seconds in (0.05, 1, 30):
            with pytest.raises(DeadlineExceededError):
                client.predict("silent", {"x": X}, deadline=seconds)
            if service.silent.is_set():
                break
        assert service.cancelled.wait(timeout=10)


def test_a_call_without_a_deadline_has_that_of_the_client(make_client: Any) -> None:
    with (
        serving(FakeService()) as target,
        make_client(target, deadline=0.05) as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.predict("silent", {"x": X})


def test_a_deadline_that_has_passed_is_an_answer_too_late(make_client: Any) -> None:
    with (
        serving(FakeService()) as target,
        make_client(target) as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.predict("echo", {"x": X}, deadline=-1.0)


@pytest.mark.parametrize("deadline", [math.inf, math.nan])
def test_there_is_always_a_deadline(make_client: Any, deadline: float) -> None:
    with make_client("127.0.0.1:1") as client, pytest.raises(ValueError, match="finite"):
        client.predict("echo", {"x": X}, deadline=deadline)


def test_a_daemon_that_is_not_there_is_unavailable(make_client: Any) -> None:
    with serving(FakeService()) as target:
        pass
    with make_client(target) as client, pytest.raises(UnavailableError, match=r"(?i)connect"):
        client.models()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": {"x": 1j}}, TypeError, "input 'x': dtype complex128"),
        ({"inputs": {"x": X}, "outputs": "y"}, TypeError, "outputs are a sequence of names"),
        ({"inputs": {"x": X}, "version": 1, "label": "a"}, ValueError, "not both"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is(
    make_client: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with make_client("127.0.0.1:1") as client, pytest.raises(error, match=message):
        client.predict("echo", **arguments)


def test_an_answer_that_contradicts_itself_is_an_internal_error(make_client: Any) -> None:
    broken = v1.PredictResponse(outputs=[v1.Tensor(name="y", dtype=v1.FP32, shape=[1], data=b"abc")])
    with (
        serving(FakeService(answer=lambda _: broken)) as target,
        make_client(target) as client,
        pytest.raises(InternalError, match="output 'y'"),
    ):
        client.predict("echo", {"x": X})


def test_messages_may_be_larger_than_the_four_mebibytes_of_grpc(make_client: Any) -> None:
    large = np.zeros(5 * 2**20, np.uint8)
    with serving(FakeService()) as target, make_client(target) as client:
        assert client.predict("echo", {"x": large}).outputs["x"].nbytes == large.nbytes


def test_models_are_described(make_client: Any) -> None:
    inputs = (v1.TensorSpec(name="x", dtype=v1.INT64, shape=[-1, 4], optional=True),)
    service = FakeService(make_model(inputs=inputs, labels=("stable",)), FAILED_MODEL)
    with serving(service) as target, make_client(target) as client:
        echo, broken = client.models()
        assert client.model("echo") == echo
        with pytest.raises(NotFoundError, match="'nothing'"):
            client.model("nothing")
    spec = TensorSpec("x", "INT64", (-1, 4), optional=True)
    version = ModelVersion(3, "READY", "", "onnxruntime", (spec,), (spec,), 32, ("stable",))
    assert echo == Model("echo", (version,), 3)
    assert broken == Model(
        "broken", (ModelVersion(1, "FAILED", "model.onnx: not a model", "", (), (), 0, ()),), 0
    )


def test_labels_and_splits_are_described_with_where_they_came_from(make_client: Any) -> None:
    model = make_model()
    model.labels.add(name="canary", version=3, set_by=v1.RUN_TIME, next_version=4)
    model.labels.add(name="stable", version=2, set_by=v1.CONFIGURATION)
    model.split.set_by = v1.RUN_TIME
    model.split.shares.add(version=3, percent=90)
    model.split.shares.add(version=2, percent=10)
    with serving(FakeService(model)) as target, make_client(target) as client:
        found = client.model("echo")
    assert found.labels == (Label("canary", 3, "RUN_TIME", 4), Label("stable", 2, "CONFIGURATION"))
    assert found.split == Split({3: 90, 2: 10}, "RUN_TIME")


def test_labels_and_splits_are_changed(make_client: Any) -> None:
    service = FakeService(make_model())
    with serving(service) as target, make_client(target) as client:
        client.set_label("echo", "canary", 3)
        client.set_label("echo", "canary", None, allow_unready=True)
        client.set_split("echo", {3: 90, 2: 10}, allow_unready=True)
        client.set_split("echo", {})
        with pytest.raises(NotFoundError, match="'nothing'"):
            client.set_label("nothing", "canary", 3)
    assert service.changes[:4] == [
        routing.SetLabelRequest(model="echo", label="canary", version=3),
        routing.SetLabelRequest(model="echo", label="canary", remove=True, allow_unready=True),
        routing.SetSplitRequest(
            model="echo",
            shares=[v1.Share(version=3, percent=90), v1.Share(version=2, percent=10)],
            allow_unready=True,
        ),
        routing.SetSplitRequest(model="echo"),
    ]


def test_what_a_newer_daemon_calls_a_state_is_shown_by_its_number(make_client: Any) -> None:
    future = v1.Model(name="m", versions=[v1.ModelVersion(state=cast("v1.ModelState", 99))])
    with serving(FakeService(future)) as target, make_client(target) as client:
        assert client.model("m").versions[0].state == "UNKNOWN_99"


def test_a_cancelled_caller_cancels_its_request() -> None:
    service = FakeService()

    async def main(target: str) -> None:
        async with AsyncClient(target) as client:
            task = asyncio.create_task(client.predict("silent", {"x": X}))
            assert await asyncio.to_thread(service.silent.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(service.cancelled.wait, 10)

    with serving(service) as target:
        asyncio.run(main(target))


def test_concurrent_calls_get_their_own_answers() -> None:
    async def main(target: str) -> None:
        async with AsyncClient(target) as client:
            answers = await asyncio.gather(*(client.predict("echo", {"x": [n]}) for n in range(50)))
            assert [answer.outputs["x"].tolist() for answer in answers] == [[n] for n in range(50)]

    with serving(FakeService()) as target:
        asyncio.run(main(target))


def test_models_are_loaded_and_unloaded(make_client: Any) -> None:
    service = FakeService()
    with serving(service) as target, make_client(target) as client:
        client.load_model("m")
        client.load_model("m", config={"max_batch_size": 2}, deadline=5)
        client.unload_model("m")
        with pytest.raises(PredictdError, match="version 1 of model 'broken' failed") as caught:
            client.load_model("broken")
        with pytest.raises(TypeError):
            client.load_model("m", config={"max_batch_size": object()})
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert service.commands == [
        control.LoadModelRequest(model="m"),
        control.LoadModelRequest(model="m", config='{"max_batch_size": 2}'),
        control.UnloadModelRequest(model="m"),
        control.LoadModelRequest(model="broken"),
    ]
