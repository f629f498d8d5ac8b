"""Clients that are closed, given up, or shared by event loops while calls are in flight; sources that fail."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from predictd.client import NO_RETRIES, AsyncClient, Client, Prediction, RequestCancelledError
from tests.fixtures.prediction_service import FakeService, in_order, serving, streamed

if TYPE_CHECKING:
    from tests.fixtures.prediction_service import Answers, Context, Requests

ONE = {"x": [1]}


class Silent(FakeService):
    """Answers all but requests to the model `silent`, on streams too."""

    def __init__(self) -> None:
        super().__init__(stream=self._stream)

    def _stream(self, requests: Requests, _: Context) -> Answers:
        for request in requests:
            if request.model == "silent":
                self.silent.set()
            else:
                yield streamed(request)


async def once(client: AsyncClient) -> object:
    return await client.predict("silent", ONE)


async def many(client: AsyncClient) -> object:
    (answer,) = [each async for each in client.predict_many("silent", [ONE])]
    return answer


async def many_unary(client: AsyncClient) -> object:
    (answer,) = [each async for each in client.predict_many("silent", [ONE], unary=True)]
    return answer


@pytest.mark.parametrize("ask", [once, many, many_unary])
def test_closing_an_asyncio_client_is_an_error_of_what_is_in_flight(
    ask: Callable[[AsyncClient], Awaitable[object]],
) -> None:
    service = Silent()

    async def main(target: str) -> object:
        client = AsyncClient(target, retries=NO_RETRIES)
        asked = asyncio.ensure_future(ask(client))
        assert await asyncio.to_thread(service.silent.wait, 10)
        await client.close()
        try:
            return await asked
        except RequestCancelledError as error:
            return error

    with serving(service) as target:
        failure = asyncio.run(main(target))
    assert isinstance(failure, RequestCancelledError)
    assert (failure.message, failure.code) == ("the client was closed", grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("ask", [once, many, many_unary])
def test_who_gives_up_is_cancelled_and_the_client_works_on(
    ask: Callable[[AsyncClient], Awaitable[object]],
) -> None:
    service = Silent()

    async def main(target: str) -> None:
        async with AsyncClient(target) as client:
            asked = asyncio.ensure_future(ask(client))
            assert await asyncio.to_thread(service.silent.wait, 10)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert isinstance(await client.predict("echo", ONE), Prediction)
            assert [type(each) async for each in client.predict_many("echo", [ONE])] == [Prediction]
            connections = [one for theirs in client._connections._all.values() for one in theirs]
            assert not any(connection.busy for connection in connections)

    with serving(service) as target:
        asyncio.run(main(target))


def test_event_loops_may_share_a_client_at_once_and_one_after_the_other() -> None:
    async def ask(client: AsyncClient) -> None:
        for _ in range(20):
            answers: list[object] = [*await asyncio.gather(*(client.predict("echo", ONE) for _ in range(3)))]
            answers += [each async for each in client.predict_many("echo", [ONE] * 3)]
            done.append(sum(isinstance(answer, Prediction) for answer in answers))

    def run(client: AsyncClient) -> None:
        asyncio.run(ask(client))

    done: list[int] = []
    with serving(FakeService(stream=in_order)) as target:
        client = AsyncClient(target)
        threads = [threading.Thread(target=run, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        run(client)
        # What the loops left behind goes without a word; a warning would be an error here.
        assert len(client._connections._all) == 1
        del client
        gc.collect()
    assert done == [6] * 80


def failing() -> Iterator[Any]:
    yield {"x": [0]}
    yield {"x": [1]}
    raise RuntimeError("the source ran dry")


def bad() -> Iterator[Any]:
    yield from ({"x": [0]}, {"x": [1]}, {"x": [1j]}, {"x": [3]})


async def collect_async(target: str, inputs: Any, *, unary: bool) -> list[Any]:
    got: list[Any] = []
    async with AsyncClient(target) as client:
        try:
            async for answer in client.predict_many("echo", inputs, unary=unary):
                got.append(answer)  # noqa: PERF401 - what came before an error counts
        except (RuntimeError, TypeError) as error:
            got.append(error)
    return got


def collect(target: str, inputs: Any, *, unary: bool) -> list[Any]:
    got: list[Any] = []
    with Client(target) as client:
        try:
            got.extend(client.predict_many("echo", inputs, unary=unary))
        except (RuntimeError, TypeError) as error:
            got.append(error)
    return got


@pytest.mark.parametrize(("inputs", "kind"), [(failing, RuntimeError), (bad, TypeError)])
@pytest.mark.parametrize("unary", [False, True])
def test_answers_of_what_came_before_an_error_are_given_before_it(
    inputs: Callable[[], Any], kind: type[Exception], unary: bool
) -> None:
    with serving(FakeService(stream=in_order)) as target:
        for got in (
            collect(target, inputs(), unary=unary),
            asyncio.run(collect_async(target, inputs(), unary=unary)),
        ):
            *answers, error = got
            assert [answer.outputs["x"].tolist() for answer in answers] == [[0], [1]]
            assert isinstance(error, kind)
