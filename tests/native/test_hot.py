"""Requests that the loop in C answers by itself, and what becomes of those that it cannot."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.frontend.apis.wire import fields
from predictd.server.frontend.rich_status import with_retry_info
from predictd.server.transport.records import NO_SEGMENT, Status
from tests.fixtures.frontend import doubled
from tests.native.hot_rig import (
    INFER_STREAM,
    PREDICT_STREAM,
    HotRig,
    call,
    infer,
    play,
    predict,
    refusal,
    started,
    stream,
    tickets,
    until,
)


def test_known_shapes_are_answered_in_both_protocols() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        one, other = call(rig, predict(3, 4, id="a")), call(rig, infer(5, 6, id="b"))
        found = await tickets(pool, 2)
        assert rig.mine(found) == [True, True]
        worker.answer(found)
        predicted, inferred = await one, await other
        assert (predicted.id, predicted.model, predicted.version) == ("a", "m", 1)
        assert [(o.name, list(o.shape)) for o in predicted.outputs] == [("y", [1, 2])]
        assert predicted.outputs[0].data == doubled(3, 4)
        assert (predicted.timing.queue_ns, predicted.timing.batch_rows) == (1000, 2)
        assert (inferred.id, inferred.model_version) == ("b", "1")
        assert list(inferred.raw_output_contents) == [doubled(5, 6)]
        rig.hot.collect()
        delta = rig.recorder.take()
        counted = {(series.api, series.status): series.requests for series in delta.requests}
        assert counted == {("predictd.v1", "OK"): 3, ("oip", "OK"): 1}
        assert sum(series.requests for series in delta.accepted) == 4

    play(scenario)


def test_other_shapes_are_learned_one_after_the_other() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for expected in (False, True):
            waiting = call(rig, predict(1, 2, 3, 4))
            found = await tickets(pool, 1)
            assert rig.mine(found) == [expected]
            worker.answer(found)
            assert (await waiting).outputs[0].data == doubled(1, 2, 3, 4)

    play(scenario)


def test_the_failures_of_a_worker_are_told_in_words() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for status, code, text in (
            (Status.INVALID_INPUT, "INVALID_ARGUMENT", "model 'm' cannot run on these inputs: no good"),
            (Status.ENGINE_FAILED, "INTERNAL", "model 'm' failed: no good"),
            (Status.NO_MEMORY, "RESOURCE_EXHAUSTED", "no memory for the answer of model 'm': no good"),
        ):
            waiting = call(rig, predict(3, 4))
            found = await tickets(pool, 1)
            assert rig.mine(found) == [True]
            worker.fail(found, status, "no good")
            failed, details = await refusal(waiting)
            assert (failed.name, details) == (code, text)

    play(scenario)


def test_a_garbled_answer_costs_its_own_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    # What is logged knows the frames, and these the memory.
    caplog.set_level(logging.CRITICAL, "predictd.server.frontend.status")

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = [call(rig, predict(3, 4)), call(rig, predict(5, 6)), call(rig, predict(7, 8))]
        one, other, third = await tickets(pool, 3)
        worker.complete([one], Status.OK, b"\xff" * 512, 1)
        worker.send(other.slot, other.generation, 0, 1, 77, 5, 1, Status.OK)
        worker.answer([third])
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        codes = [o.code().name if isinstance(o, grpc.aio.AioRpcError) else "OK" for o in outcomes]
        assert sorted(codes) == ["INTERNAL", "INTERNAL", "OK"]

    play(scenario)


def test_a_full_queue_refuses_in_words() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        taken = [call(rig, predict(3, 4)) for _ in range(80)]
        outcomes: list[str] = []

        async def noted(waiting: Any) -> None:
            try:
                await waiting
                outcomes.append("OK")
            except grpc.aio.AioRpcError as error:
                outcomes.append(f"{error.code().name} {error.details()}")

        asking = [asyncio.ensure_future(noted(one)) for one in taken]
        await until(lambda: len(outcomes) >= 80 - 64)
        while len(outcomes) < 80:
            for ticket in pool.read():
                worker.answer([ticket])
            worker.collect_releases()
            await asyncio.sleep(0.002)
        await asyncio.gather(*asking)
        refused = [text for text in outcomes if text != "OK"]
        assert len(refused) >= 80 - 64 - 1
        assert set(refused) <= {
            "RESOURCE_EXHAUSTED the queue of model 'm' is full (max_queue_size)",
            "RESOURCE_EXHAUSTED 64 requests are in flight, which is this front end's limit",
        }

    play(scenario, queue_records=64)


@pytest.mark.parametrize("method", [PREDICT_STREAM, INFER_STREAM])
def test_streams_are_answered_by_both_halves_in_their_order(method: str) -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        ordered = method == INFER_STREAM
        make, kind = (
            (infer, oip_pb.ModelStreamInferResponse) if ordered else (predict, v1.PredictStreamResponse)
        )
        # The second and the fourth are of shapes that Python is to see first.
        sizes = (2, 4, 2, 6, 2)
        async with stream(rig, method) as opened:
            for number, size in enumerate(sizes):
                values = [number] * size
                await opened.write(make(*values, id=str(number)).SerializeToString())
            found = await tickets(pool, len(sizes))
            assert sorted(rig.mine(found)) == [False, False, True, True, True]
            for ticket in reversed(found):
                worker.answer([ticket])
            ids = []
            for _ in sizes:
                message: Any = kind.FromString(await opened.read())
                ids.append((message.infer_response if ordered else message).id)
            assert ids == list("01234") if ordered else sorted(ids) == list("01234")
            await opened.done_writing()
            assert await opened.read() is grpc.aio.EOF
            assert await opened.code() is grpc.StatusCode.OK

    play(scenario)


def test_errors_in_streams_are_messages() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for method, make in ((PREDICT_STREAM, predict), (INFER_STREAM, infer)):
            async with stream(rig, method) as opened:
                await opened.write(make(3, 4, id="bad").SerializeToString())
                found = await tickets(pool, 1)
                assert rig.mine(found) == [True]
                worker.fail(found, Status.ENGINE_FAILED, "no good")
                answer = await opened.read()
                assert b"model 'm' failed: no good" in answer
                assert b"bad" in answer
                await opened.done_writing()
                assert await opened.code() is grpc.StatusCode.OK

    play(scenario)


def test_completions_of_nobody_and_late_ones_change_nothing() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        for slot in (ticket.slot + 1, 63, 128, 2**32 - 1):
            worker.send(slot, ticket.generation, 0, 1, NO_SEGMENT, 0, 1, Status.OK)
        worker.send(ticket.slot, ticket.generation + 1, 0, 1, NO_SEGMENT, 0, 1, Status.OK)
        worker.answer([ticket])
        worker.send(ticket.slot, ticket.generation, 0, 1, NO_SEGMENT, 0, 1, Status.OK)
        assert (await waiting).outputs[0].data == doubled(3, 4)

    play(scenario)


@pytest.mark.parametrize("early", [False, True])
def test_what_would_be_late_is_refused_in_the_words_of_python(early: bool) -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for _ in range(12):
            waiting = [call(rig, predict(3, 4)) for _ in range(2)]
            for ticket in await tickets(pool, 2):
                worker.answer([ticket], queue_ns=10 * 10**9)
            await asyncio.gather(*waiting)
        before = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        # With a model's name in its headers a call is refused before its message, once one was refused.
        metadata = (("predictd-model", "m"),) if early else ()
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(rig, predict(3, 4), timeout=5, metadata=metadata)
            failed = caught.value
            assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            about = re.fullmatch(
                r"an answer of model 'm' is expected in (\d+) ms, and the deadline of the request is in (\d+) ms",
                failed.details() or "",
            )
            assert about is not None
            expected_ms, left_ms = map(int, about.groups())
            assert 4000 < left_ms <= 5100 < expected_ms
            trailers = dict(failed.trailing_metadata() or ())
            # As the status table has it, from what the trailers themselves say.
            pushback_ms = int(str(trailers["grpc-retry-pushback-ms"]))
            assert 0 <= pushback_ms - (expected_ms - left_ms) <= 2
            details = trailers["grpc-status-details-bin"]
            assert isinstance(details, bytes)
            nanos = _retry_ns(details)
            assert math.ceil(nanos / 1e6) == pushback_ms
            assert details == with_retry_info(failed.code(), failed.details() or "", nanos / 1e9)
        # One without a deadline waits.
        other = call(rig, predict(5, 6))
        worker.answer([ticket, *await tickets(pool, 1)])
        await asyncio.gather(before, other)
        rig.hot.collect()
        delta = rig.recorder.take()
        assert sum(series.requests for series in delta.shed) == 2
        assert {s.status: s.requests for s in delta.requests} == {"OK": 28, "RESOURCE_EXHAUSTED": 2}

    play(scenario)


def _retry_ns(details: bytes) -> int:
    """The delay of the RetryInfo in a google.rpc.Status."""
    packed = any_pb2.Any.FromString(_field(details, 3))
    delay = duration_pb2.Duration.FromString(_field(packed.value, 1))
    return int(delay.seconds * 10**9 + delay.nanos)


def _field(message: bytes, number: int) -> bytes:
    return next(
        message[first:last]
        for found, kind, first, last, _ in fields(message, 0, len(message))
        if (found, kind) == (number, 2)
    )
