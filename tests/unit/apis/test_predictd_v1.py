from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import DType
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import InvalidRequestError, OverloadedError
from predictd.server.frontend.apis import predictd_v1
from predictd.server.frontend.inference import InferResponse, InputTensor, OutputTensor
from predictd.server.frontend.status import Failure
from tests.unit.apis.test_fake_core import FakeCore, refusal, serving, unary

if TYPE_CHECKING:
    from collections.abc import Sequence

PREDICT = "/predictd.v1.PredictionService/Predict"
LIST_MODELS = "/predictd.v1.PredictionService/ListModels"
GET_MODEL = "/predictd.v1.PredictionService/GetModel"

tensors = st.builds(
    InputTensor,
    name=st.text(max_size=8),
    dtype=st.sampled_from(DType),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(tuple),
    data=st.binary(max_size=64),
)


def predict_request(
    request_id: str = "r", model: str = "echo", inputs: Sequence[InputTensor] = ()
) -> pb.PredictRequest:
    return pb.PredictRequest(
        model=model,
        id=request_id,
        inputs=[
            pb.Tensor(name=t.name, dtype=t.dtype.name, shape=t.shape, data=bytes(t.data)) for t in inputs
        ],
    )


@given(st.lists(tensors, max_size=4), st.text(max_size=8), st.lists(st.text(max_size=4)), st.integers(0, 9))
def test_decoding_keeps_everything(
    inputs: list[InputTensor], request_id: str, outputs: list[str], priority: int
) -> None:
    message = predict_request(request_id, "m", inputs)
    message.outputs.extend(outputs)
    message.priority = priority
    request = predictd_v1.decode(message.SerializeToString())
    assert list(request.inputs) == inputs
    assert (request.model, request.id, request.priority) == ("m", request_id, priority)
    assert list(request.outputs) == outputs
    assert (request.version, request.label, request.timeout_ns) == (None, None, 0)


def test_version_and_label_exclude_each_other() -> None:
    by_version = predictd_v1.decode(pb.PredictRequest(model="m", version=4).SerializeToString())
    by_label = predictd_v1.decode(pb.PredictRequest(model="m", label="canary").SerializeToString())
    assert (by_version.version, by_version.label) == (4, None)
    assert (by_label.version, by_label.label) == (None, "canary")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff", "not a valid predictd.v1.PredictRequest"),
        (b"", "names no model"),
        (
            pb.PredictRequest(model="m", inputs=[pb.Tensor(name="x")]).SerializeToString(),
            "input 'x' has an unknown dtype: 0",
        ),
        (
            # Tensor.dtype is an open enum: 99 parses.
            pb.PredictRequest(model="m").SerializeToString() + b"\x2a\x05\x0a\x01x\x10\x63",
            "input 'x' has an unknown dtype: 99",
        ),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        predictd_v1.decode(data)


@given(st.lists(tensors, max_size=4), st.text(max_size=8))
def test_encoding_keeps_everything(outputs: list[InputTensor], request_id: str) -> None:
    response = InferResponse(
        "m", 5, [OutputTensor(t.name, t.dtype, t.shape, memoryview(t.data)) for t in outputs], 11, 22, 33
    )
    message = pb.PredictResponse.FromString(predictd_v1.encode(response, request_id))
    assert (message.id, message.model, message.version) == (request_id, "m", 5)
    assert [(o.name, o.dtype, tuple(o.shape), o.data) for o in message.outputs] == [
        (t.name, t.dtype.value, t.shape, t.data) for t in outputs
    ]
    assert message.timing == pb.Timing(queue_ns=11, compute_ns=22, batch_rows=33)
    streamed = pb.PredictStreamResponse.FromString(predictd_v1.encode_streamed(response, request_id))
    assert streamed == pb.PredictStreamResponse(id=request_id, response=message)


def test_an_error_in_a_stream_carries_the_number_of_the_code() -> None:
    data = predictd_v1.encode_error(Failure(grpc.StatusCode.NOT_FOUND, "no model"), "r1")
    assert pb.PredictStreamResponse.FromString(data) == pb.PredictStreamResponse(
        id="r1", error=pb.Error(code=5, message="no model")
    )
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_seconds=0.25)
    told = pb.PredictStreamResponse.FromString(predictd_v1.encode_error(full, "r1")).error
    assert (told.code, told.retry_after_ns) == (8, 250_000_000)


def test_our_enums_and_the_proto_agree() -> None:
    assert {d.name: d.value for d in DType} | {"DATA_TYPE_UNSPECIFIED": 0} == dict(pb.DataType.items())


def test_predict_answers_over_the_wire() -> None:
    request = predict_request("r9", inputs=[InputTensor("x", DType.INT8, (2,), b"\x01\xff")])

    async def scenario() -> tuple[pb.PredictResponse, FakeCore]:
        core = FakeCore()
        async with serving(predictd_v1.handlers(core)) as channel:
            data = await unary(channel, PREDICT)(request.SerializeToString())
        return pb.PredictResponse.FromString(data), core

    response, core = asyncio.run(scenario())
    assert response.id == "r9"
    assert response.outputs == request.inputs
    (seen,) = core.seen
    assert (seen.api, seen.deadline_ns) == ("predictd.v1", 0)


def test_the_deadline_of_the_call_reaches_the_core() -> None:
    async def scenario() -> FakeCore:
        core = FakeCore()
        async with serving(predictd_v1.handlers(core)) as channel:
            await unary(channel, PREDICT)(predict_request().SerializeToString(), timeout=60)
        return core

    before_ns = time.monotonic_ns()
    (seen,) = asyncio.run(scenario()).seen
    assert before_ns + 50 * 10**9 < seen.deadline_ns < time.monotonic_ns() + 61 * 10**9


def test_a_client_that_cancels_cancels_its_request() -> None:
    async def scenario() -> FakeCore:
        core = FakeCore()
        core.gate("r")
        async with serving(predictd_v1.handlers(core)) as channel:
            call = unary(channel, PREDICT)(predict_request("r").SerializeToString())
            await core.wait_for(lambda: core.in_flight == 1)
            call.cancel()
            await core.wait_for(lambda: core.cancelled == {"r"})
        return core

    assert asyncio.run(scenario()).cancelled == {"r"}


def test_failures_become_statuses(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.failures = {"full": OverloadedError("queue is full", 0.25), "bug": ZeroDivisionError("inside")}
        async with serving(predictd_v1.handlers(core)) as channel:
            predict = unary(channel, PREDICT)
            full = await refusal(predict(predict_request("full").SerializeToString()))
            assert (full.code(), full.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")
            assert ("grpc-retry-pushback-ms", "250") in tuple(full.trailing_metadata())
            malformed = await refusal(predict(b"\xff"))
            assert malformed.code() is grpc.StatusCode.INVALID_ARGUMENT
            bug = await refusal(predict(predict_request("bug").SerializeToString()))
            assert bug.code() is grpc.StatusCode.INTERNAL
            assert "inside" not in (bug.details() or "")

    asyncio.run(scenario())
    assert [record.name for record in caplog.records] == ["predictd.server.frontend.status"]


def test_models_are_listed_with_all_they_are() -> None:
    async def scenario() -> tuple[pb.ListModelsResponse, pb.Model, grpc.aio.AioRpcError]:
        async with serving(predictd_v1.handlers(FakeCore())) as channel:
            listed = pb.ListModelsResponse.FromString(await unary(channel, LIST_MODELS)(b""))
            get_model = unary(channel, GET_MODEL)
            one = await get_model(pb.GetModelRequest(model="echo").SerializeToString())
            unknown = await refusal(get_model(pb.GetModelRequest(model="nope").SerializeToString()))
        return listed, pb.Model.FromString(one), unknown

    listed, model, unknown = asyncio.run(scenario())
    broken, echo, single = listed.models
    assert echo == model
    assert (model.name, model.default_version) == ("echo", 1)
    assert [(v.version, v.state) for v in model.versions] == [
        (3, pb.LOADING),
        (2, pb.UNLOADING),
        (1, pb.READY),
    ]
    ready = model.versions[2]
    assert (ready.engine, ready.max_batch_size, list(ready.labels)) == ("onnxruntime", 32, ["stable"])
    assert list(ready.inputs) == [
        pb.TensorSpec(name="x", dtype=pb.FP32, shape=[-1, 3]),
        pb.TensorSpec(name="s", dtype=pb.BYTES, shape=[-1], optional=True),
    ]
    assert (broken.versions[0].state, broken.default_version) == (pb.FAILED, 0)
    assert broken.versions[0].reason == "model.onnx: no such operator"
    assert single.versions[0].max_batch_size == 0
    assert (unknown.code(), unknown.details()) == (grpc.StatusCode.NOT_FOUND, "no model 'nope'")
