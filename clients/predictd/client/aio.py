"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import grpc.aio

from predictd.client import aio_streams, calls, errors, messages, streaming
from predictd.client.calls import Many, Pause, Step, Steps
from predictd.client.connections import Owner
from predictd.client.errors import PredictdError
from predictd.client.session import BaseClient, Session

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from predictd.client.messages import Prediction, Request

P = ParamSpec("P")
T = TypeVar("T")
Do = Callable[[Step], Coroutine[Any, Any, Any]]

_processes: dict[str, int] = {}


def _method(
    describe: Callable[Concatenate[Session, P], Steps[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _drive(describe(self._session, *args, **kwargs), self._do)

    calls.signature_of(describe, method)
    return method


def _many(
    describe: Callable[Concatenate[Session, P], Many],
) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[Prediction | PredictdError]]:
    def method(
        self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[Prediction | PredictdError]:
        return self._pipeline(describe(self._session, *args, **kwargs))

    calls.signature_of(describe, method)
    return method


class AsyncClient(BaseClient[grpc.aio.Channel]):
    """The asyncio client. Any number of its calls may be in flight. Also an async context manager.

    It may be made before an event loop runs, and connects in the one that first calls it. `BaseClient` has its
    arguments.
    """

    predict = _method(calls.predict)
    predict_many = _many(calls.predict_many)
    models = _method(calls.models)
    model = _method(calls.model)
    set_label = _method(calls.set_label)
    set_split = _method(calls.set_split)
    load_model = _method(calls.load_model)
    unload_model = _method(calls.unload_model)

    async def predict_stream(
        self, requests: AsyncIterable[Request], *, deadline: float | None = None
    ) -> AsyncGenerator[tuple[str, Prediction | PredictdError]]:
        """Send many requests over one stream and yield the answers as they come, in any order.

        This is the bare stream, without retries: `predict_many` keeps the order and tries again. A request that fails
        yields its error and the stream goes on. `requests` is read only as fast as the daemon accepts them. Leave
        early through `contextlib.aclosing`, which cancels what is in flight.

        Args:
            requests: What to send. A request without an id gets its number in the stream, from "0".
            deadline: Seconds that the stream may bring no answer while it owes one; None for the client's.

        Yields:
            The id of a request and its prediction, or the error that it met.

        Raises:
            PredictdError: The stream itself broke. What was not yet yielded has no answer.
            TypeError: As `predict` does.
            ValueError: As `predict` does, and for an id that is already in flight.
        """
        seconds = messages.deadline_seconds(deadline, self._session.deadline_seconds)
        with self._connections.take(self._owner()) as connection:
            method = aio_streams.stream(connection)
            answers = streaming.exchange(method, requests, seconds, self._session.metadata())
            async with aclosing(answers):
                async for answer in answers:
                    yield answer

    async def close(self) -> None:
        """Close the connections of this event loop. Calls in flight fail with RequestCancelledError."""
        for channel in self._connections.close(asyncio.get_running_loop()):
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # typing.override needs Python 3.12.
    def _open(self) -> grpc.aio.Channel:  # type: ignore[explicit-override]
        credentials = self._channel_credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, self._arguments)
        return grpc.aio.secure_channel(self._target, credentials, self._arguments)

    def _owner(self) -> Owner:  # type: ignore[explicit-override]
        return Owner(_checked_process(), asyncio.get_running_loop(), self._generation())

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        with self._connections.take(self._owner()) as connection:
            method = aio_streams.unary(connection, step.method)
            try:
                data = await method(step.request, timeout=step.seconds, metadata=step.metadata)
            except asyncio.CancelledError as cancelled:
                raise aio_streams.as_error(cancelled) from cancelled
            return step.method.read(data)

    async def _pipeline(self, many: Many) -> AsyncGenerator[Prediction | PredictdError]:
        async with aio_streams.Streams(self._connections, self._owner, self._do) as streams:
            do = self._do if many.unary else streams.do
            runs: asyncio.Queue[asyncio.Task[Prediction | PredictdError] | None] = asyncio.Queue()
            slots = asyncio.Semaphore(many.in_flight)

            async def feed() -> None:
                try:
                    async for one in _async(many.inputs):
                        await slots.acquire()
                        runs.put_nowait(asyncio.create_task(_result(many.describe(one), do)))
                finally:
                    runs.put_nowait(None)

            feeding = asyncio.create_task(feed())
            try:
                while (run := await runs.get()) is not None:
                    answer = await run
                    slots.release()
                    yield answer
                await feeding
            finally:
                await _cancel(feeding, *(run for run in _drain(runs) if run is not None))


def _checked_process() -> int:
    """This process. Raises RuntimeError if its parent used gRPC's asyncio stack: there every call would hang."""
    first = _processes.setdefault("first", os.getpid())
    if first != os.getpid():
        raise RuntimeError(
            "this process was forked from one that used AsyncClient, which gRPC does not support; use it only after "
            "the fork, or start processes with multiprocessing's spawn"
        )
    return first


async def _drive(steps: Steps[T], do: Do) -> T:
    """Do as the steps say."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await do(step)
            except grpc.RpcError as error:
                step = steps.throw(errors.from_rpc(error))
            except PredictdError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def _result(steps: Steps[Prediction], do: Do) -> Prediction | PredictdError:
    try:
        return await _drive(steps, do)
    except PredictdError as error:
        return error


async def _async(inputs: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(inputs, AsyncIterable):
        async for one in inputs:
            yield one
    else:
        for one in inputs:
            yield one


def _drain(runs: asyncio.Queue[T]) -> list[T]:
    return [runs.get_nowait() for _ in range(runs.qsize())]


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
