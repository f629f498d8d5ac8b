"""Streams against a real daemon: order, errors inside, both ends closing, thousands of messages, broken clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
import numpy as np
import pytest

from predictd.client import NO_RETRIES, AsyncClient, InvalidRequestError, NotFoundError, Prediction, Request
from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import BLOCK, ENGINE_ERROR

T = TypeVar("T")
Stream: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

PREDICT_STREAM = "/predictd.v1.PredictionService/PredictStream"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
MIB = 2**20
WIDTH = 4
PATIENCE_SECONDS = 60.0
SLOW = """
engine = "tests.fixtures.faulty_engine:load"
pool = "slow"
max_batch_size = 1
instances = 1
[parameters]
block_seconds = 0.5
"""


HELD = """
engine = "tests.fixtures.gated_engine:load"
pool = "held"
max_batch_size = 1
instances = 1
[parameters]
run_gates = "{gates}"
"""


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a file has to be for each negative row of `held`, named by its number, before that is answered."""
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def daemon(gates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Serves `slow` and `held`, one row at a time by a worker each, and the `fast` and `wide` identities."""
    root = tmp_path_factory.mktemp("streams")
    repository = root / "models"
    (repository / "held").mkdir(parents=True)
    (repository / "held" / "model.toml").write_text(HELD.format(gates=gates))
    (repository / "slow").mkdir(parents=True)
    (repository / "slow" / "model.toml").write_text(SLOW)
    models.identity(repository / "fast.onnx", shape=("batch", WIDTH))
    models.identity(repository / "wide.onnx", shape=("batch", "n"))
    models.save(
        repository / "widen.onnx",
        [models.node("Tile", "x times", "y")],
        [models.tensor("x", DType.FP32, ("batch", 1))],
        [models.tensor("y", DType.FP32, ("batch", MIB // 4))],
        {"times": np.array([1, MIB // 4], np.int64)},
    )
    with running(repository, "--frontends", "1", "--max-message-size", "8MiB", folder=root / "run") as daemon:
        yield daemon


def run(scenario: Awaitable[T]) -> T:
    """Run a scenario, which must end: a stream that hangs fails its test and not the whole suite."""

    async def limited() -> T:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await scenario

    return asyncio.run(limited())


@asynccontextmanager
async def opened(daemon: Daemon, method: str) -> AsyncIterator[Stream]:
    """A raw stream."""
    async with grpc.aio.insecure_channel(daemon.grpc) as channel:
        multicallable: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        yield multicallable()


async def everything(stream: Stream) -> list[bytes]:
    """All that the daemon still says, to the end of the stream, which must be a good one."""
    messages = []
    while isinstance(data := await stream.read(), bytes):
        messages.append(data)
    assert await stream.code() is grpc.StatusCode.OK
    return messages


def predict_request(model: str, request_id: str, x: Any) -> bytes:
    array = np.asarray(x, np.float32)
    tensor = v1.Tensor(name="x", dtype=v1.FP32, shape=array.shape, data=array.tobytes())
    return v1.PredictRequest(model=model, id=request_id, inputs=[tensor]).SerializeToString()


def infer_request(model: str, request_id: str, x: Any) -> bytes:
    array = np.asarray(x, np.float32)
    message = oip.ModelInferRequest(model_name=model, id=request_id, raw_input_contents=[array.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    return message.SerializeToString()


def row(value: float, width: int = 1) -> Any:
    return np.full((1, width), value, np.float32)


def until_idle(daemon: Daemon) -> None:
    daemon.wait_metric("predictd_in_flight", 0)


# PredictStream ------------------------------------------------------------------------------------------


def test_answers_come_as_they_are_ready(daemon: Daemon) -> None:
    """The first request takes half a second, those behind it nothing."""

    async def scenario() -> list[v1.PredictStreamResponse]:
        async with opened(daemon, PREDICT_STREAM) as stream:
            await stream.write(predict_request("slow", "slow", row(BLOCK)))
            for n in range(3):
                await stream.write(predict_request("fast", f"fast {n}", row(n, WIDTH)))
            await stream.done_writing()
            return [v1.PredictStreamResponse.FromString(data) for data in await everything(stream)]

    answers = run(scenario())
    assert {answer.id for answer in answers[:3]} == {"fast 0", "fast 1", "fast 2"}
    assert (answers[3].id, answers[3].response.id, answers[3].response.model) == ("slow", "slow", "slow")


def test_an_error_is_a_message_and_the_stream_goes_on(daemon: Daemon) -> None:
    async def scenario() -> dict[str, v1.PredictStreamResponse]:
        async with opened(daemon, PREDICT_STREAM) as stream:
            await stream.write(b"\xff")
            await stream.write(predict_request("nobody", "unknown", row(1)))
            await stream.write(predict_request("fast", "shape", row(1, WIDTH + 1)))
            await stream.write(predict_request("slow", "failure", row(ENGINE_ERROR)))
            await stream.write(predict_request("widen", "answer", np.zeros((8, 1))))
            await stream.write(predict_request("fast", "good", row(1, WIDTH)))
            await stream.done_writing()
            answers = [v1.PredictStreamResponse.FromString(data) for data in await everything(stream)]
            return {answer.id: answer for answer in answers}

    answers = run(scenario())
    assert answers.pop("good").response.outputs[0].data == row(1, WIDTH).tobytes()
    assert {key: (answer.error.code, answer.error.message) for key, answer in answers.items()} == {
        "": (3, "the request is not a valid predictd.v1.PredictRequest message"),
        "unknown": (5, "model 'nobody' is not known"),
        "shape": (3, "input 'x' of model 'fast' has shape [1, 5]; expected [-1, 4] (-1: any size)"),
        "failure": (13, answers["failure"].error.message),
        "answer": (3, answers["answer"].error.message),
    }
    assert "max_message_size" in answers["answer"].error.message
    assert answers["failure"].error.message.startswith("model 'slow' failed: the engine failed (error ")


def test_our_client_is_told_of_each_failure(daemon: Daemon) -> None:
    async def requests() -> AsyncIterator[Request]:
        yield Request(model="fast", inputs={"x": row(7, WIDTH)})
        yield Request(model="fast", inputs={"z": row(7, WIDTH)}, id="wrong")
        yield Request(model="nobody", inputs={})
        yield Request(model="fast", inputs={"x": row(8, WIDTH)}, outputs=["y"], version=1, priority=1)

    async def scenario() -> dict[str, object]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return {key: answer async for key, answer in client.predict_stream(requests())}

    answers = run(scenario())
    assert set(answers) == {"0", "wrong", "2", "3"}
    first, last = answers["0"], answers["3"]
    assert isinstance(first, Prediction) and isinstance(last, Prediction)
    assert (first.outputs["y"] == 7).all() and (last.outputs["y"] == 8).all()
    assert isinstance(answers["wrong"], InvalidRequestError)
    assert isinstance(answers["2"], NotFoundError)


def test_thousands_of_messages_are_each_answered_once(daemon: Daemon) -> None:
    count = 5000

    async def requests() -> AsyncIterator[Request]:
        for n in range(count):
            yield Request(model="fast", inputs={"x": np.full((1 + n % 3, WIDTH), n, np.float32)})

    async def scenario() -> dict[str, Any]:
        answers: dict[str, Any] = {}
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            async for key, answer in client.predict_stream(requests()):
                assert isinstance(answer, Prediction)
                assert key not in answers
                answers[key] = answer.outputs["y"]
        return answers

    answers = run(scenario())
    assert len(answers) == count
    for n in range(count):
        assert answers[str(n)].shape == (1 + n % 3, WIDTH)
        assert (answers[str(n)] == n).all()
    until_idle(daemon)


@pytest.mark.parametrize(
    ("method", "request_of"), [(PREDICT_STREAM, predict_request), (MODEL_STREAM_INFER, infer_request)]
)
def test_all_that_was_sent_is_answered_after_the_client_closes_its_side(
    daemon: Daemon, method: str, request_of: Callable[[str, str, Any], bytes]
) -> None:
    async def scenario() -> int:
        async with opened(daemon, method) as stream:
            await stream.write(request_of("slow", "slow", row(BLOCK)))
            for n in range(100):
                await stream.write(request_of("fast", str(n), row(n, WIDTH)))
            await stream.done_writing()
            return len(await everything(stream))

    assert run(scenario()) == 101


def test_a_stream_without_requests_ends_well(daemon: Daemon) -> None:
    async def scenario(method: str) -> list[bytes]:
        async with opened(daemon, method) as stream:
            await stream.done_writing()
            return await everything(stream)

    assert run(scenario(PREDICT_STREAM)) == run(scenario(MODEL_STREAM_INFER)) == []


def test_a_client_that_does_not_read_is_not_read_from_and_loses_nothing(daemon: Daemon) -> None:
    """600 answers of 64 KiB fit into no buffer on the way: the daemon must stop taking requests meanwhile."""
    count, width = 600, 16 * 1024

    async def scenario() -> tuple[int, set[str]]:
        async with opened(daemon, PREDICT_STREAM) as stream:

            async def send() -> None:
                for n in range(count):
                    await stream.write(predict_request("wide", str(n), row(n, width)))
                await stream.done_writing()

            sending = asyncio.create_task(send())
            done, _ = await asyncio.wait([sending], timeout=1)
            unsent = not done
            answers = [v1.PredictStreamResponse.FromString(data) for data in await everything(stream)]
            await sending
            for answer in answers:
                assert answer.response.outputs[0].data == row(int(answer.id), width).tobytes()
            return unsent, {answer.id for answer in answers}

    unsent, answered = run(scenario())
    assert unsent
    assert answered == {str(n) for n in range(count)}


@pytest.mark.parametrize(
    ("method", "request_of"), [(PREDICT_STREAM, predict_request), (MODEL_STREAM_INFER, infer_request)]
)
def test_a_client_that_goes_away_leaves_nothing_in_flight(
    daemon: Daemon, gates: Path, method: str, request_of: Callable[[str, str, Any], bytes]
) -> None:
    """The same load twice needs no more shared memory than once, so no block is lost."""
    until_idle(daemon)

    async def scenario(turn: int) -> None:
        gate = gates / str(turn)
        gate.unlink(missing_ok=True)
        async with opened(daemon, method) as stream:
            await stream.write(request_of("held", "held", row(-turn)))
            # The first one may have to wait for memory, and then comes behind others.
            await asyncio.to_thread(daemon.wait_metric, "predictd_in_flight", 1)
            for n in range(200):
                await stream.write(request_of("held", str(n), row(n)))
            await asyncio.to_thread(daemon.wait_metric, "predictd_in_flight", 201)
            dropped, left = counts()
            stream.cancel()
        # Else they would have run before the daemon hears that nobody waits for them.
        await asyncio.to_thread(
            daemon.wait_until, lambda: counts()[1] > left, 40, "told that the client is gone"
        )
        gate.touch()
        await asyncio.to_thread(until_idle, daemon)
        assert counts()[0] > dropped

    def counts() -> tuple[float, float]:
        return (
            daemon.metric("predictd_dropped_total", model="held", reason="cancelled"),
            daemon.metric("predictd_requests_total", model="held", status="CANCELLED"),
        )

    arenas = []
    for turn in range(1, 5):
        run(scenario(turn))
        arenas.append(daemon.metric("predictd_arena_bytes"))
    assert arenas[-1] == arenas[0]

    async def still_answers() -> Prediction:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await client.predict("held", {"x": row(5)})

    assert run(still_answers()).outputs["y"] == 5


def test_a_generator_that_is_left_early_leaves_nothing_in_flight(daemon: Daemon) -> None:
    async def requests() -> AsyncIterator[Request]:
        while True:
            yield Request(model="fast", inputs={"x": row(1, WIDTH)})

    async def scenario() -> int:
        seen = 0
        async with (
            AsyncClient(daemon.grpc, retries=NO_RETRIES) as client,
            aclosing(client.predict_stream(requests())) as answers,
        ):
            async for _ in answers:
                seen += 1
                if seen == 100:
                    break
        return seen

    assert run(scenario()) == 100
    until_idle(daemon)


def test_a_message_over_the_limit_ends_its_stream_and_no_other(daemon: Daemon) -> None:
    async def scenario() -> None:
        async with opened(daemon, PREDICT_STREAM) as good, opened(daemon, PREDICT_STREAM) as bad:
            await bad.write(predict_request("wide", "huge", np.zeros((1, 9 * MIB // 4))))
            with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
                await bad.read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await good.write(predict_request("fast", "good", row(1, WIDTH)))
            await good.done_writing()
            (answer,) = await everything(good)
            assert v1.PredictStreamResponse.FromString(answer).response.id == "good"

    run(scenario())
    until_idle(daemon)


# ModelStreamInfer ---------------------------------------------------------------------------------------


def test_triton_streams_answer_in_the_order_of_the_requests(daemon: Daemon) -> None:
    """As Triton's clients expect, which may leave ids out and count the answers."""

    async def scenario() -> list[oip.ModelStreamInferResponse]:
        async with opened(daemon, MODEL_STREAM_INFER) as stream:
            await stream.write(infer_request("slow", "", row(BLOCK)))
            for n in range(1, 30):
                await stream.write(infer_request("fast", "", row(n, WIDTH)))
            await stream.done_writing()
            return [oip.ModelStreamInferResponse.FromString(data) for data in await everything(stream)]

    first, *others = run(scenario())
    assert first.infer_response.raw_output_contents[0] == row(BLOCK).tobytes()
    for n, answer in enumerate(others, 1):
        assert answer.infer_response.raw_output_contents[0] == row(n, WIDTH).tobytes()


def test_triton_streams_carry_errors_in_place(daemon: Daemon) -> None:
    async def scenario() -> list[oip.ModelStreamInferResponse]:
        async with opened(daemon, MODEL_STREAM_INFER) as stream:
            await stream.write(infer_request("fast", "good", row(1, WIDTH)))
            await stream.write(infer_request("fast", "bad", row(1, WIDTH + 1)))
            await stream.write(b"\xff")
            await stream.write(infer_request("widen", "wide", np.zeros((8, 1))))
            await stream.write(infer_request("fast", "last", row(2, WIDTH)))
            await stream.done_writing()
            return [oip.ModelStreamInferResponse.FromString(data) for data in await everything(stream)]

    good, bad, garbage, wide, last = run(scenario())
    assert [answer.infer_response.id for answer in (good, bad, garbage, wide, last)] == [
        *("good", "bad", "", "wide", "last")
    ]
    assert (good.error_message, last.error_message) == ("", "")
    assert bad.error_message == "input 'x' of model 'fast' has shape [1, 5]; expected [-1, 4] (-1: any size)"
    assert bad.infer_response.model_name == "fast"
    assert garbage.error_message == "the request is not a valid inference.ModelInferRequest message"
    assert "max_message_size" in wide.error_message
    for answer in (good, bad, garbage, wide, last):
        assert answer.infer_response.parameters["triton_final_response"].bool_param
