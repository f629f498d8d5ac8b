"""Requests that the loop in C answers by itself, and what becomes of those that it cannot."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
from collections import Counter
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
from tests.fixtures.frontend import doubled, publication
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


def test_what_waited_with_a_dead_worker_is_put_back_and_what_ran_runs_alone() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        spare = rig.add_worker(2, pool)
        waited, ran = call(rig, predict(3, 4)), None
        (first,) = await tickets(pool, 1)
        worker.hold([first])
        worker.die()
        again = [ticket for ticket in await tickets(pool, 4) if not ticket.probe]
        assert (rig.mine(again), [(t.attempt, t.alone) for t in again]) == ([False], [(0, False)])
        spare.answer(again)
        assert (await waited).outputs[0].data == doubled(3, 4)

        ran = call(rig, predict(5, 6))
        (second,) = await tickets(pool, 1)
        assert rig.mine([second]) == [True]
        third = rig.add_worker(3, pool)
        spare.hold([second], running=True)
        spare.die()
        again = [ticket for ticket in await tickets(pool, 4) if not ticket.probe]
        assert [(t.attempt, t.alone) for t in again] == [(1, True)]
        fourth = rig.add_worker(4, pool)
        third.hold(again, running=True)
        third.die()
        code, details = await refusal(ran)
        assert code is grpc.StatusCode.INTERNAL
        assert "crashes the engine of model 'm'" in details
        assert fourth.collect_releases() == 0

    play(scenario)


def test_a_ticket_that_died_unclaimed_is_found_by_the_probe() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        spare = rig.add_worker(2, pool)
        waiting = call(rig, predict(3, 4))
        await tickets(pool, 1)  # Read, and not claimed.
        worker.die()
        probes = await tickets(pool, 3)
        assert all(ticket.probe for ticket in probes)
        for probe in probes:
            spare.return_probe(probe)
        found = await tickets(pool, 1)
        spare.answer(found)
        assert (await waiting).outputs[0].data == doubled(3, 4)

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


def test_a_client_that_leaves_takes_no_part_and_its_slot_comes_back() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        waiting.cancel()
        await until(lambda: rig.cancelled(pool, ticket))
        assert rig.dispatcher.in_flight == 1
        worker.fail([ticket], Status.CANCELLED)
        await until(lambda: rig.dispatcher.in_flight == 0)
        rig.hot.collect()
        statuses = {series.status: series.requests for series in rig.recorder.take().requests}
        assert statuses == {"OK": 2, "CANCELLED": 1}

    play(scenario)


def test_a_pool_that_goes_fails_what_waits_and_python_says_so() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        await tickets(pool, 1)
        rig.routes.publish(publication())
        worker.die()
        rig.dispatcher.pool_gone(1, "no worker is left")
        rig.pools.pop(1).close()
        code, details = await refusal(waiting)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == "model 'm' stopped to be served"

    play(scenario)


def test_a_lane_is_retired_once_its_last_request_is_over() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        idle = asyncio.Event()
        rig.hot.retire(ticket.lane)
        rig.dispatcher.retirements.when_idle(ticket.lane, idle.set)
        assert not idle.is_set()
        worker.answer([ticket])
        await waiting
        await idle.wait()

    play(scenario)


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


@pytest.mark.parametrize(
    "requests", [500, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_clients_that_leave_at_any_time_leave_nothing_behind(requests: int) -> None:
    draw = random.Random(requests)

    async def ask(rig: HotRig) -> str:
        waiting = call(rig, draw.choice((predict, infer))(*[1.0] * draw.choice((2, 4, 6))))
        leaves = asyncio.get_running_loop().call_later(draw.random() / 100, waiting.cancel)
        try:
            await waiting
        except asyncio.CancelledError:
            return "left"
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            leaves.cancel()
        return "answered"

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        outcomes: Counter[str] = Counter()

        async def client() -> None:
            while outcomes.total() < requests:
                outcomes[await ask(rig)] += 1

        clients = [asyncio.ensure_future(client()) for _ in range(32)]
        while not all(one.done() for one in clients):
            for ticket in pool.read():
                if rig.cancelled(pool, ticket):
                    worker.fail([ticket], Status.CANCELLED)
                else:
                    worker.answer([ticket])
            worker.collect_releases()
            await asyncio.sleep(0.001)
        await asyncio.gather(*clients)
        # Who resets more than a thousand loses the connection, with all that is on it.
        assert outcomes.pop("UNAVAILABLE", 0) <= 32 * (outcomes["left"] // 1000)
        # Requests of those that left are in flight until their workers say so, and there are 64 at most.
        assert outcomes.pop("RESOURCE_EXHAUSTED", 0) < outcomes["left"] // 10
        assert set(outcomes) == {"left", "answered"}
        # What was sent before its client left comes still.
        while rig.dispatcher.in_flight:
            worker.fail(pool.read(), Status.CANCELLED)
            await asyncio.sleep(0.001)

    play(scenario, bound_seconds=1700 if requests > 1000 else 60)


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
