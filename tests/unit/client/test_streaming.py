from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from predictd.client import (
    AsyncClient,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    PredictdError,
    Prediction,
    Request,
    UnavailableError,
)
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.prediction_service import FakeService, in_order, in_reverse, serving, streamed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fixtures.prediction_service import Answers, Context, Requests, Stream

Results = list[tuple[str, Prediction | PredictdError]]


async def these(*requests: Request) -> AsyncIterator[Request]:
    for request in requests:
        yield request


def echoes(*numbers: int) -> list[Request]:
    return [Request(model="echo", inputs={"x": [number]}, id=f"n{number}") for number in numbers]


def results(stream: Stream, requests: AsyncIterator[Request], **options: Any) -> Results:
    async def main(target: str) -> Results:
        async with AsyncClient(target) as client:
            return [each async for each in client.predict_stream(requests, **options)]

    with serving(FakeService(stream=stream)) as target:
        return asyncio.run(main(target))


def values(result: Prediction | PredictdError) -> Any:
    assert isinstance(result, Prediction), result
    return result.outputs["x"].tolist()


def test_answers_come_in_any_order_and_are_matched_by_id() -> None:
    answers = results(in_reverse, these(*echoes(0, 1, 2)))
    assert [request_id for request_id, _ in answers] == ["n2", "n1", "n0"]
    assert {request_id: values(each) for request_id, each in answers} == {"n0": [0], "n1": [1], "n2": [2]}


def test_a_request_without_an_id_gets_its_number() -> None:
    requests = [Request(model="echo", inputs={"x": [number]}) for number in (10, 11)]
    answers = dict(results(in_reverse, these(*requests)))
    assert {request_id: values(each) for request_id, each in answers.items()} == {"0": [10], "1": [11]}


def test_an_error_is_an_answer_and_the_stream_goes_on() -> None:
    good, other = echoes(1, 2)
    bad = Request(model="fail-INVALID_ARGUMENT", inputs={"x": [0]}, id="bad")
    full = Request(model="fail-RESOURCE_EXHAUSTED", inputs={"x": [0]}, id="full")
    answers = dict(results(in_reverse, these(bad, good, full, other)))
    assert type(answers["bad"]) is InvalidRequestError
    assert str(answers["bad"]) == "no: bad"
    assert type(answers["full"]) is OverloadedError
    assert (values(answers["n1"]), values(answers["n2"])) == ([1], [2])


def test_a_broken_answer_is_an_error_of_its_request_alone() -> None:
    def stream(requests: Requests, _: Context) -> Answers:
        for request in requests:
            answer = streamed(request)
            if request.id == "n1":
                answer.response.outputs[0].data = b"abc"
            yield answer

    answers = dict(results(stream, these(*echoes(1, 2))))
    assert isinstance(answers["n1"], InternalError)
    assert values(answers["n2"]) == [2]


def test_no_requests_give_no_answers() -> None:
    assert results(in_reverse, these()) == []


def test_answers_arrive_while_requests_are_still_made() -> None:
    async def main(target: str) -> list[Any]:
        seen: asyncio.Queue[str] = asyncio.Queue()

        async def ping_pong() -> AsyncIterator[Request]:
            for request in echoes(*range(5)):
                yield request
                assert await seen.get() == request.id

        async with AsyncClient(target) as client:
            collected = []
            async for request_id, result in client.predict_stream(ping_pong()):
                collected.append(values(result))
                seen.put_nowait(request_id)
            return collected

    with serving(FakeService(stream=in_order)) as target:
        assert asyncio.run(main(target)) == [[0], [1], [2], [3], [4]]


def test_many_requests_are_all_answered() -> None:
    answers = dict(results(in_order, these(*echoes(*range(500)))))
    assert {request_id: values(each) for request_id, each in answers.items()} == {
        f"n{number}": [number] for number in range(500)
    }


async def failing() -> AsyncIterator[Request]:
    yield echoes(0)[0]
    raise RuntimeError("the source ran dry")


def test_what_the_source_raises_reaches_the_caller() -> None:
    with pytest.raises(RuntimeError, match="ran dry"):
        results(in_reverse, failing())


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (Request(model="echo", inputs={"x": 1j}), TypeError, "input 'x': dtype complex128"),
        (Request(model="echo", inputs={"x": [1]}, id="n0"), ValueError, "'n0' is already in flight"),
    ],
)
def test_what_cannot_be_sent_ends_the_stream(request_: Request, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        results(in_reverse, these(*echoes(0), request_))


def test_an_id_may_be_used_again_once_it_is_answered() -> None:
    async def main(target: str) -> None:
        answered = asyncio.Event()

        async def twice() -> AsyncIterator[Request]:
            yield echoes(0)[0]
            await answered.wait()
            yield echoes(0)[0]

        async with AsyncClient(target) as client:
            count = 0
            async for request_id, _ in client.predict_stream(twice()):
                assert request_id == "n0"
                count += 1
                answered.set()
            assert count == 2

    with serving(FakeService(stream=in_order)) as target:
        asyncio.run(main(target))


def test_an_answer_that_nothing_waits_for_breaks_the_stream() -> None:
    def stream(_: Requests, __: Context) -> Answers:
        yield v1.PredictStreamResponse(id="stranger", response=v1.PredictResponse())

    with pytest.raises(InternalError, match="'stranger', which nothing waits for"):
        results(stream, these(*echoes(0)))


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    def stream(requests: Requests, _: Context) -> Answers:
        yield from map(streamed, list(requests)[:1])

    with pytest.raises(InternalError, match="left 2 requests unanswered"):
        results(stream, these(*echoes(0, 1, 2)))


def test_a_stream_that_breaks_is_a_typed_error() -> None:
    def stream(requests: Requests, context: Context) -> Answers:
        yield streamed(next(requests))
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    with pytest.raises(UnavailableError, match="going away"):
        results(stream, these(*echoes(0, 1)))


def silent(requests: Requests, _: Context) -> Answers:
    yield streamed(next(requests))
    list(requests)


def test_a_stream_that_owes_an_answer_has_a_deadline() -> None:
    async def endless() -> AsyncIterator[Request]:
        for request in echoes(0, 1):
            yield request
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceededError, match=r"no answer came for 1 s, 1 are owed"):
        results(silent, endless(), deadline=1)


def test_a_stream_that_owes_nothing_may_idle_beyond_the_deadline() -> None:
    async def slow() -> AsyncIterator[Request]:
        first, second = echoes(0, 1)
        yield first
        loop = asyncio.get_running_loop()
        idle = loop.create_future()
        loop.call_later(1.2, idle.set_result, None)
        await idle
        yield second

    assert len(results(in_order, slow(), deadline=1)) == 2


def test_a_deadline_that_has_passed_ends_the_stream_at_once() -> None:
    with pytest.raises(DeadlineExceededError):
        results(silent, these(*echoes(0)), deadline=0.0)


def test_leaving_early_cancels_what_is_in_flight() -> None:
    service = FakeService(stream=in_reverse)

    def stream(requests: Requests, context: Context) -> Answers:
        context.add_callback(service.cancelled.set)
        yield from map(streamed, requests)

    service.stream = stream
    closed: list[str] = []

    async def endless() -> AsyncIterator[Request]:
        try:
            yield echoes(0)[0]
            await asyncio.Event().wait()
        finally:
            closed.append("source")

    async def main(target: str) -> None:
        async with AsyncClient(target) as client, aclosing(client.predict_stream(endless())) as answers:
            async for request_id, _ in answers:
                assert request_id == "n0"
                break
        assert closed == ["source"]
        assert await asyncio.to_thread(service.cancelled.wait, 10)

    with serving(service) as target:
        asyncio.run(main(target))


def test_large_streams_are_not_cut_at_the_limit_of_grpc() -> None:
    large = np.zeros(5 * 2**20, np.uint8)
    answers = results(in_reverse, these(Request(model="echo", inputs={"x": large})))
    assert isinstance(answers[0][1], Prediction)
    assert answers[0][1].outputs["x"].nbytes == large.nbytes
