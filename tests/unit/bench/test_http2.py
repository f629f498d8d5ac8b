"""The HTTP/2 client against grpcio's server: flow control, limits, statuses, connections that end."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.bench.dialects import dialect
from predictd.server.bench.events import Call
from predictd.server.bench.frames import DATA, frame, prefixed
from predictd.server.bench.hpack import RequestHeaders
from predictd.server.bench.http2 import Connection
from predictd.server.bench.loops import ClosedLoop, OpenLoop
from predictd.server.bench.timer import Timer
from tests.unit.bench.harness import SECONDS, Counting, closed, echo, serving


def test_messages_of_any_size_arrive_whole() -> None:
    bodies = [bytes([n]) * size for n, size in enumerate((0, 5, 16379, 16380, 70_000, 5_000_000, 1))]
    with serving(echo) as target:
        found = closed(target, bodies, 60, [3, 2])
    assert found.failures == []
    assert len(found.answers) >= 60
    assert all(answer == bodies[index] for index, answer in found.answers)


def test_a_limit_of_streams_is_kept() -> None:
    # Without its other protection, which refuses at random what comes while an old call is being forgotten.
    with serving(echo, ("grpc.max_concurrent_streams", 2), ("grpc.http.overload_protection", 0)) as target:
        found = closed(target, [b"a", b"b" * 40_000], 100, [20])
    assert found.failures == []
    assert len(found.answers) >= 100


def test_connections_that_the_server_ends_are_replaced() -> None:
    def slow(request: bytes, _context: grpc.ServicerContext) -> bytes:
        time.sleep(0.01)
        return request

    age = ("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 10_000)
    with serving(slow, *age) as target:
        found = closed(target, [b"x"], 200, [4, 2])
    assert found.failures == []
    assert len(found.answers) >= 200


def test_what_is_refused_is_counted_with_its_status() -> None:
    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")

    with serving(refuse) as target:
        found = closed(target, [b"x"], 5, [1])
    assert found.answers == []
    assert set(found.failures) == {"grpc-status 8"}


def test_answers_of_a_stream_are_told_apart_by_their_ids() -> None:
    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = v1.PredictRequest.FromString(request)
        if asked.model == "bad":
            error = v1.Error(code=3, message="no such\nmodel")
            return v1.PredictStreamResponse(id=asked.id, error=error).SerializeToString()
        response = v1.PredictResponse(id=asked.id, model=asked.model * 30_000)
        return v1.PredictStreamResponse(id=asked.id, response=response).SerializeToString()

    bodies = [v1.PredictRequest(model=name).SerializeToString() for name in ("one", "two", "bad")]
    with serving(answer) as target:
        found = closed(target, bodies, 300, [8, 8], streams=True)
    assert set(found.failures) == {"status 3: no such model"}
    assert len(found.answers) + len(found.failures) >= 300
    for index, message in found.answers:
        response = v1.PredictStreamResponse.FromString(message).response
        assert response.model == ("one", "two")[index] * 30_000


@pytest.mark.parametrize("cut", [1, 4, 5, 7, 300])
def test_messages_of_a_stream_may_lie_in_frames_in_any_way(cut: int) -> None:
    sizes = [0, 1, 200, 0, 700]
    answers = [
        v1.PredictStreamResponse(
            id=str(at), response=v1.PredictResponse(model="m" * size)
        ).SerializeToString()
        for at, size in enumerate(sizes)
    ]
    recorder = Counting(1, len(sizes))

    async def receive() -> None:
        # Nobody listens there: what is received is made up.
        loop = ClosedLoop("127.0.0.1:9", dialect("predictd", streams=True), [b""], recorder, [])
        link = Connection(loop, dialect("predictd", streams=True), RequestHeaders("/a.B/C", "made.up"))
        for at in range(len(sizes)):
            link.start(Call(at, 0), b"")
        line = b"".join(map(prefixed, answers))
        for at in range(0, len(line), cut):
            link.data_received(frame(DATA, 0, 1, line[at : at + cut]))

    asyncio.run(receive())
    assert recorder.answers == list(enumerate(answers))


def test_streams_of_the_open_inference_protocol() -> None:
    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = oip.ModelInferRequest.FromString(request)
        response = oip.ModelInferResponse(id=asked.id)
        wrong = "wrong" if asked.model_name == "bad" else ""
        message = oip.ModelStreamInferResponse(error_message=wrong, infer_response=response)
        return message.SerializeToString()

    bodies = [oip.ModelInferRequest(model_name=name).SerializeToString() for name in ("good", "bad")]
    with serving(answer) as target:
        found = closed(target, bodies, 100, [5], api="oip", streams=True)
    assert set(found.failures) == {"wrong"}
    assert {index for index, _ in found.answers} == {0}


def test_a_server_that_is_not_there() -> None:
    with serving(echo) as target:
        pass
    with pytest.raises(ConnectionError, match="cannot connect"):
        closed(target, [b"x"], 1, [1])


def test_an_open_loop_counts_from_the_schedule() -> None:
    def slow(request: bytes, _context: grpc.ServicerContext) -> bytes:
        time.sleep(0.02)
        return request

    recorder = Counting(1, 20)

    async def drive(target: str) -> None:
        now = time.monotonic_ns()
        # All of them at once, but only one may be under way: the last waits for all before it.
        times = iter([*range(now, now + 20), now + 10**12])
        loop = OpenLoop(target, dialect("predictd", streams=False), [b"x"], recorder, 2, times, 1)
        try:
            await asyncio.wait_for(loop.finished, SECONDS)
        finally:
            loop.close()

    with serving(slow) as target:
        asyncio.run(drive(target))
    assert len(recorder.answers) == 20
    assert max(recorder.latencies_ns) >= 20 * 20_000_000
    # The wait is the server's fault: only the first left when it wanted to.
    assert len(recorder.late_ns) == 1


def test_a_timer_fires_at_its_time_and_not_before() -> None:
    async def wait() -> list[int]:
        fired: list[int] = []
        due = asyncio.Event()

        def note() -> None:
            fired.append(time.monotonic_ns())
            due.set()

        timer = Timer(note)
        try:
            timer.wake_at(time.monotonic_ns() + 10**13)
            wanted = time.monotonic_ns() + 3_000_000
            timer.wake_at(wanted)
            await asyncio.wait_for(due.wait(), SECONDS)
            due.clear()
            timer.wake_at(0)
            await asyncio.wait_for(due.wait(), SECONDS)
        finally:
            timer.close()
        return [fired[0] - wanted, len(fired)]

    late_ns, count = asyncio.run(wait())
    assert late_ns >= 0
    assert count == 2
