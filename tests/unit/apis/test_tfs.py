from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.protos.tfs import serving_pb2 as pb
from predictd.protos.tfs import tensor_pb2
from predictd.server.errors import (
    DeadlineError,
    InferenceError,
    ModelUnavailableError,
    OverloadedError,
    UnknownModelError,
)
from predictd.server.frontend.apis import tfs
from tests.unit.apis.test_fake_core import refusal, serving, unary
from tests.unit.apis.tfs_calls import (
    LATEST,
    RoutedCore,
    ask,
    floats,
    labelled,
    refused,
    rows,
    signed,
    specific,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message


def test_predict_answers_with_lists_and_names_the_version() -> None:
    core = RoutedCore()
    text = tensor_pb2.TensorProto(
        dtype=tensor_pb2.DT_STRING,
        tensor_shape=tensor_pb2.TensorShapeProto(dim=[tensor_pb2.TensorShapeProto.Dim(size=2)]),
        tensor_content=b"\1\2abb",
    )
    request = pb.PredictRequest(model_spec=LATEST, inputs={"x": floats(1, 2, 3), "s": text}, client_id=b"me")
    response = ask("Predict", request, pb.PredictResponse, core)
    assert response.model_spec == pb.ModelSpec(
        name="echo", version=specific("", 1).version, signature_name="serving_default"
    )
    assert set(response.outputs) == {"x", "s"}
    assert response.outputs["x"] == floats(1, 2, 3)
    assert list(response.outputs["s"].string_val) == [b"a", b"bb"]
    (seen,) = core.seen
    assert (seen.api, seen.deadline_ns) == ("tfs", 0)
    # In the order of their names: a map has none.
    assert [(t.name, t.dtype, t.shape) for t in seen.request.inputs] == [
        ("s", DType.BYTES, (2,)),
        ("x", DType.FP32, (1, 3)),
    ]
    assert (seen.request.version, seen.request.label, seen.request.outputs) == (None, None, ())


def test_predict_fills_a_short_list() -> None:
    request = pb.PredictRequest(model_spec=LATEST, inputs={"x": floats(1, 2, shape=(2, 3))})
    outputs = ask("Predict", request, pb.PredictResponse).outputs
    assert list(outputs["x"].float_val) == [1, 2, 2, 2, 2, 2]


def test_predict_answers_with_content_where_that_is_asked_for() -> None:
    request = pb.PredictRequest(model_spec=LATEST, inputs={"x": floats(1, 2, 3)})
    tensor = ask("Predict", request, pb.PredictResponse, tensor_content=True).outputs["x"]
    assert tensor.tensor_content == np.array([1, 2, 3], np.float32).tobytes()
    assert not tensor.float_val


def test_predict_has_the_bytes_of_tensorflow_serving() -> None:
    request = pb.PredictRequest(model_spec=LATEST, inputs={"x": floats(1, shape=(1,))})

    async def scenario() -> bytes:
        async with serving(*tfs.handlers(RoutedCore())) as channel:
            return await unary(channel, f"/{tfs.PREDICTION_SERVICE}/Predict")(request.SerializeToString())

    tensor = "0801 1204 12020801 2a04 0000803f"
    spec = "0a04 6563686f 1202 0801 1a0f 73657276696e675f64656661756c74"
    assert asyncio.run(scenario()) == bytes.fromhex(f"0a13 0a0178 120e {tensor} 121b {spec}")


@pytest.mark.parametrize(
    ("spec", "version", "label"),
    [
        (specific("echo", 1), 1, None),
        (specific("echo", 0), None, None),
        (labelled("echo", "stable"), None, "stable"),
        (signed("echo", "serving_default"), None, None),
    ],
)
def test_predict_passes_the_choice_of_a_version_on(
    spec: pb.ModelSpec, version: int | None, label: str | None
) -> None:
    core = RoutedCore()
    ask("Predict", pb.PredictRequest(model_spec=spec, output_filter=["x"]), pb.PredictResponse, core)
    request = core.seen[0].request
    assert (request.model, request.version, request.label) == ("echo", version, label)
    assert tuple(request.outputs) == ("x",)


def test_predict_keeps_the_deadline() -> None:
    core = RoutedCore()

    async def scenario() -> None:
        async with serving(*tfs.handlers(core)) as channel:
            call = unary(channel, f"/{tfs.PREDICTION_SERVICE}/Predict")
            await call(pb.PredictRequest(model_spec=LATEST).SerializeToString(), timeout=100)

    asyncio.run(scenario())
    assert core.seen[0].deadline_ns > 0


def test_scores_are_of_a_version_that_is_drawn_and_metadata_is_not() -> None:
    core = RoutedCore()
    ask(
        "Classify",
        pb.ClassificationRequest(model_spec=pb.ModelSpec(name="classes"), input=rows((1, 2))),
        pb.ClassificationResponse,
        core,
    )
    assert core.drawn == 1
    metadata = pb.GetModelMetadataRequest(
        model_spec=pb.ModelSpec(name="classes"), metadata_field=["signature_def"]
    )
    ask("GetModelMetadata", metadata, pb.GetModelMetadataResponse, core)
    assert core.drawn == 1


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "not a valid tensorflow.serving.PredictRequest message"),
        (pb.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (
            pb.PredictRequest(model_spec=LATEST, inputs={"x": tensor_pb2.TensorProto()}),
            grpc.StatusCode.INVALID_ARGUMENT,
            "tensor parsing error: x: dtype DT_INVALID is not supported",
        ),
        (
            pb.PredictRequest(model_spec=LATEST, output_filter=["x", "s", "x"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "duplicate output tensor alias: x",
        ),
        (
            pb.PredictRequest(model_spec=signed("echo", "other")),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "other" not found.',
        ),
        (
            pb.PredictRequest(
                model_spec=LATEST, predict_streamed_options=pb.PredictStreamedOptions(request_state="SPLIT")
            ),
            grpc.StatusCode.UNIMPLEMENTED,
            "'predict_streamed_options' is not supported",
        ),
        (
            pb.PredictRequest(model_spec=LATEST, request_options=pb.PredictRequest.RequestOptions()),
            grpc.StatusCode.UNIMPLEMENTED,
            "'request_options' is not supported",
        ),
    ],
)
def test_predict_refuses_what_it_cannot_do(
    request_: Message | bytes, code: grpc.StatusCode, details: str
) -> None:
    got, said = refused("Predict", request_)
    assert got is code
    assert said.endswith(details)


# Each RPC that needs a version, as a request without a ModelSpec.
ASKING: list[tuple[str, Message]] = [
    ("Predict", pb.PredictRequest()),
    ("Predict", pb.PredictRequest(model_spec=signed("", "other"))),
    ("Classify", pb.ClassificationRequest(input=rows((1, 2)))),
    ("Regress", pb.RegressionRequest(input=rows((1, 2)))),
    ("GetModelMetadata", pb.GetModelMetadataRequest(metadata_field=["signature_def"])),
]


@pytest.mark.parametrize(("method", "request_"), ASKING)
@pytest.mark.parametrize(
    ("spec", "code", "details"),
    [
        (
            pb.ModelSpec(name="nope"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(nope)",
        ),
        (
            specific("echo", 9),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(echo, 9)",
        ),
        (
            specific("echo", 3),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(echo, 3) (model 'echo' version 3 is LOADING)",
        ),
        (
            pb.ModelSpec(name="broken"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(broken) (no version of model 'broken' is ready)",
        ),
        (
            labelled("echo", "canary"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        ),
        (
            labelled("nope", "stable"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: stable",
        ),
        (labelled("echo", ""), grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: "),
    ],
)
def test_a_version_that_does_not_serve_is_not_found(
    method: str, request_: Message, spec: pb.ModelSpec, code: grpc.StatusCode, details: str
) -> None:
    asking = type(request_).FromString(request_.SerializeToString())
    asking.MergeFrom(type(request_)(model_spec=spec))
    assert refused(method, asking) == (code, details)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (OverloadedError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DeadlineError("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (InferenceError("broken"), grpc.StatusCode.INTERNAL),
        # The version serves, and this request was unlucky: worth another try.
        (ModelUnavailableError("try again"), grpc.StatusCode.UNAVAILABLE),
        (UnknownModelError("it was there a moment ago"), grpc.StatusCode.NOT_FOUND),
    ],
)
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Predict", pb.PredictRequest(model_spec=LATEST)),
        ("Classify", pb.ClassificationRequest(model_spec=pb.ModelSpec(name="classes"), input=rows((1, 2)))),
        ("Regress", pb.RegressionRequest(model_spec=pb.ModelSpec(name="flat"), input=rows((1, 2)))),
    ],
)
def test_a_failed_inference_has_its_own_status(
    failure: Exception, code: grpc.StatusCode, method: str, request_: Message
) -> None:
    core = RoutedCore()
    core.failure = failure
    assert refused(method, request_, core) == (code, str(failure))


def test_messages_are_bounded() -> None:
    request = pb.PredictRequest(
        model_spec=LATEST, inputs={"x": floats(1, shape=(20,)), "y": floats(1, shape=(20,))}
    )
    code, details = refused("Predict", request, max_message_bytes=159)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("tensor parsing error: y: shape [20] is larger than a message may be")
    code, details = refused("Predict", request, max_message_bytes=160)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("the answer has ")


@pytest.mark.parametrize(
    ("service", "method"),
    [
        (tfs.PREDICTION_SERVICE, "MultiInference"),
        (tfs.MODEL_SERVICE, "HandleReloadConfigRequest"),
        ("tensorflow.serving.SessionService", "SessionRun"),
    ],
)
def test_what_is_not_served_is_unimplemented(service: str, method: str) -> None:
    assert refused(method, b"", service=service)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_the_services_are_those_of_the_protocol() -> None:
    services = pb.DESCRIPTOR.services_by_name.values()
    assert {service.full_name for service in services} == set(tfs.SERVICES)

    async def scenario() -> None:
        async with serving(*tfs.handlers(RoutedCore())) as channel:
            for service in services:
                for method in service.methods:
                    if method.name == "HandleReloadConfigRequest":
                        # It says what is wrong inside its answer (test_control.py).
                        continue
                    error = await refusal(unary(channel, f"/{service.full_name}/{method.name}")(b""))
                    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(scenario())
