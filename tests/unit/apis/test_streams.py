from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
import pytest

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.errors import OverloadedError, UnknownModelError
from predictd.server.frontend.apis import oip, predictd_v1
from predictd.server.frontend.apis.rpc import SCANNED_BYTES
from predictd.server.frontend.apis.streams import IN_FLIGHT_MAX, Streams
from tests.unit.apis.test_fake_core import FakeCore, serving, stream, unary

if TYPE_CHECKING:
    from collections.abc import Callable

PREDICT_STREAM = "/predictd.v1.PredictionService/PredictStream"
LIST_MODELS = "/predictd.v1.PredictionService/ListModels"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


def request(request_id: str, model: str = "echo") -> bytes:
    return pb.PredictRequest(id=request_id, model=model).SerializeToString()


def oip_request(request_id: str) -> bytes:
    return oip_pb.ModelInferRequest(id=request_id, model_name="echo").SerializeToString()


async def read(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> pb.PredictStreamResponse:
    data = await call.read()
    assert isinstance(data, bytes), "the stream has ended"
    return pb.PredictStreamResponse.FromString(data)


async def read_oip(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> oip_pb.ModelStreamInferResponse:
    data = await call.read()
    assert isinstance(data, bytes), "the stream has ended"
    return oip_pb.ModelStreamInferResponse.FromString(data)


def arrived(core: FakeCore, count: int) -> Callable[[], bool]:
    return lambda: len(core.seen) == count


def test_answers_come_in_completion_order() -> None:
    async def scenario() -> list[str]:
        core = FakeCore()
        gates = [core.gate(name) for name in "abc"]
        async with serving(predictd_v1.handlers(core)) as channel:
            call = stream(channel, PREDICT_STREAM)
            for name in "abc":
                await call.write(request(name))
            await core.wait_for(arrived(core, 3))
            ids = []
            for gate in reversed(gates):
                gate.set()
                ids.append((await read(call)).id)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
        return ids

    assert asyncio.run(scenario()) == ["c", "b", "a"]


def test_oip_answers_come_in_the_order_of_the_requests() -> None:
    async def scenario() -> list[str]:
        core = FakeCore()
        first = core.gate("a")
        async with serving(oip.handlers(core)) as channel:
            call = stream(channel, MODEL_STREAM_INFER)
            for name in "abc":
                await call.write(oip_request(name))
            await call.done_writing()
            # b and c are done, and wait for a.
            await core.wait_for(lambda: len(core.seen) == 3 and core.in_flight == 1)
            first.set()
            return [(await read_oip(call)).infer_response.id for _ in "abc"]

    assert asyncio.run(scenario()) == ["a", "b", "c"]


def test_an_error_is_a_message_and_the_stream_goes_on() -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.failures = {"bad": UnknownModelError("no such model"), "full": OverloadedError("full")}
        async with serving(predictd_v1.handlers(core)) as channel:
            call = stream(channel, PREDICT_STREAM)

            async def ask(data: bytes) -> pb.PredictStreamResponse:
                await call.write(data)
                return await read(call)

            bad = await ask(request("bad"))
            assert (bad.id, bad.error.code, bad.error.message) == ("bad", 5, "no such model")
            assert (await ask(request("full"))).error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            malformed = await ask(b"\xff\xff")
            assert (malformed.id, malformed.error.code) == ("", 3)
            nameless = await ask(request("nameless", model=""))
            assert (nameless.id, nameless.error.code) == ("nameless", 3)
            assert (await ask(request("good"))).response.id == "good"

    asyncio.run(scenario())


def test_an_oip_error_is_a_message_that_names_its_request() -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.failures = {"bad": UnknownModelError("no such model")}
        async with serving(oip.handlers(core)) as channel:
            call = stream(channel, MODEL_STREAM_INFER)
            await call.write(oip_request("bad"))
            bad = await read_oip(call)
            assert (bad.error_message, bad.infer_response.id) == ("no such model", "bad")
            assert bad.infer_response.model_name == "echo"
            await call.write(b"\xff\xff")
            assert "not a valid inference.ModelInferRequest" in (await read_oip(call)).error_message
            await call.write(oip_request("good"))
            good = await read_oip(call)
            assert (good.error_message, good.infer_response.id) == ("", "good")
            assert good.infer_response.parameters["triton_final_response"].bool_param is True

    asyncio.run(scenario())


def test_a_half_closed_stream_finishes_what_is_in_flight() -> None:
    async def scenario() -> None:
        core = FakeCore()
        gate = core.gate("late")
        async with serving(predictd_v1.handlers(core)) as channel:
            call = stream(channel, PREDICT_STREAM)
            await call.write(request("late"))
            await call.done_writing()
            await core.wait_for(arrived(core, 1))
            gate.set()
            assert (await read(call)).response.id == "late"
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(scenario())


@pytest.mark.parametrize("api", ["predictd.v1", "oip"])
def test_a_client_that_cancels_cancels_all_its_requests(api: str, caplog: pytest.LogCaptureFixture) -> None:
    method, message = (PREDICT_STREAM, request) if api == "predictd.v1" else (MODEL_STREAM_INFER, oip_request)

    async def scenario() -> None:
        core = FakeCore()
        core.gate("a")
        core.gate("b")
        async with serving(predictd_v1.handlers(core), oip.handlers(core)) as channel:
            call = stream(channel, method)
            await call.write(message("a"))
            await call.write(message("b"))
            await core.wait_for(arrived(core, 2))
            call.cancel()
            await core.wait_for(lambda: core.cancelled == {"a", "b"})

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.records == []


def test_a_stream_has_a_bounded_number_of_requests_in_flight() -> None:
    count = IN_FLIGHT_MAX + 50
    names = [f"r{i}" for i in range(count)]

    async def scenario() -> tuple[set[str], int]:
        core = FakeCore()
        gates = [core.gate(name) for name in names]
        async with serving(predictd_v1.handlers(core)) as channel:
            call = stream(channel, PREDICT_STREAM)
            for name in names:
                await call.write(request(name))
            await core.wait_for(lambda: core.in_flight == IN_FLIGHT_MAX)
            # Round trips on the same connection: a server that went on reading would have got to the others.
            for _ in range(20):
                await unary(channel, LIST_MODELS)(b"")
            for gate in gates:
                gate.set()
            await call.done_writing()
            return {(await read(call)).id for _ in names}, core.in_flight_peak

    answered, peak = asyncio.run(scenario())
    assert answered == set(names)
    assert peak == IN_FLIGHT_MAX


def test_streams_that_are_closed_answer_what_they_read_and_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        core = FakeCore()
        gate = core.gate("accepted")
        streams = Streams()
        async with serving(predictd_v1.handlers(core, streams)) as channel:
            call = stream(channel, PREDICT_STREAM)
            idle = stream(channel, PREDICT_STREAM)
            await call.write(request("accepted"))
            await idle.write(request("before"))
            assert (await read(idle)).id == "before"
            await core.wait_for(lambda: core.in_flight == 1)
            streams.close()
            assert await idle.code() is grpc.StatusCode.UNAVAILABLE
            gate.set()
            assert (await read(call)).response.id == "accepted"
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert "not accepted" in await call.details()
            late = stream(channel, PREDICT_STREAM)
            assert await late.code() is grpc.StatusCode.UNAVAILABLE

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.records == []


def test_a_half_closed_stream_ends_well_although_streams_are_closed() -> None:
    async def scenario() -> None:
        core = FakeCore()
        gate = core.gate("last")
        streams = Streams()
        async with serving(predictd_v1.handlers(core, streams)) as channel:
            call = stream(channel, PREDICT_STREAM)
            await call.write(request("last"))
            await call.done_writing()
            await core.wait_for(lambda: core.in_flight == 1)
            # The end of the client's half is read before an answer of the same connection is.
            await unary(channel, LIST_MODELS)(b"")
            streams.close()
            gate.set()
            assert (await read(call)).response.id == "last"
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(scenario())


def test_a_large_request_of_a_stream_is_refused_before_it_is_parsed_and_by_its_id() -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.pressed = True
        ours = pb.PredictRequest(id="large", model="echo")
        ours.inputs.add(name="x", data=bytes(SCANNED_BYTES))
        theirs = oip_pb.ModelInferRequest(id="large", model_name="echo", model_version="1")
        theirs.raw_input_contents.append(bytes(SCANNED_BYTES))
        streams = Streams()
        async with serving(predictd_v1.handlers(core, streams), oip.handlers(core, streams)) as channel:
            call = stream(channel, PREDICT_STREAM)
            await call.write(ours.SerializeToString())
            refused = await read(call)
            assert (refused.id, refused.error.code, refused.error.message) == ("large", 8, "too much to do")
            await call.write(request("small"))
            assert (await read(call)).id == "small"
            call = stream(channel, MODEL_STREAM_INFER)
            await call.write(theirs.SerializeToString())
            error = await read_oip(call)
            assert error.error_message == "too much to do"
            assert (error.infer_response.id, error.infer_response.model_version) == ("large", "1")
        assert [heading.id for heading, _, _ in core.unparsed] == ["large", "large"]

    asyncio.run(scenario())
