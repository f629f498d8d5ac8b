"""The blocking client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeGuard, TypeVar

import grpc

from predictd.client import calls, errors, sync_streams
from predictd.client.calls import Ask, Many, Pause, Step, Steps
from predictd.client.errors import PredictdError
from predictd.client.session import BaseClient, Session
from predictd.client.sync_streams import Wait

if TYPE_CHECKING:
    from types import TracebackType

    from predictd.client.calls import Inputs
    from predictd.client.messages import Prediction
    from predictd.client.sync_streams import Start

P = ParamSpec("P")
# Of a request that is not sent.
NOTHING = Wait(result=lambda: None, done=lambda: True, cancel=lambda: None)
T = TypeVar("T")


def _method(
    describe: Callable[Concatenate[Session, P], Steps[T]],
) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(describe(self._session, *args, **kwargs))

    calls.signature_of(describe, method)
    return method


def _many(
    describe: Callable[Concatenate[Session, P], Many],
) -> Callable[Concatenate[Client, P], Generator[Prediction | PredictdError]]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[Prediction | PredictdError]:
        return self._pipeline(describe(self._session, *args, **kwargs))

    calls.signature_of(describe, method)
    return method


class Client(BaseClient[grpc.Channel]):
    """The blocking client. Threads may share one. Also a context manager. `BaseClient` has its arguments."""

    predict = _method(calls.predict)
    predict_many = _many(calls.predict_many)
    models = _method(calls.models)
    model = _method(calls.model)
    set_label = _method(calls.set_label)
    set_split = _method(calls.set_split)
    load_model = _method(calls.load_model)
    unload_model = _method(calls.unload_model)

    def close(self) -> None:
        """Close the connections. Calls in flight fail with RequestCancelledError."""
        for channel in self._connections.close(None):
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # typing.override needs Python 3.12.
    def _open(self) -> grpc.Channel:  # type: ignore[explicit-override]
        credentials = self._channel_credentials()
        if credentials is None:
            return grpc.insecure_channel(self._target, self._arguments)
        return grpc.secure_channel(self._target, credentials, self._arguments)

    def _run(self, steps: Steps[T]) -> T:
        first = next(steps)
        return _drive(steps, self._do, partial(self._do, first))

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        with self._connections.take(self._owner()) as connection:
            method = sync_streams.unary(connection, step.method)
            return step.method.read(method(step.request, timeout=step.seconds, metadata=step.metadata))

    def _start(self, ask: Ask) -> Wait:
        """Send a request; what waits for its answer."""
        connection = self._connections.take(self._owner())
        method = sync_streams.unary(connection, ask.method)
        call = method.future(ask.request, timeout=ask.seconds, metadata=ask.metadata)
        call.add_done_callback(lambda done: connection.done(None if done.cancelled() else done.exception()))
        return Wait(lambda: ask.method.read(call.result()), call.done, call.cancel)

    def _pipeline(self, many: Many) -> Generator[Prediction | PredictdError]:
        if isinstance(many.inputs, AsyncIterable):
            raise TypeError("the blocking client takes no asynchronous iterable; AsyncClient does")
        with sync_streams.Streams(self._connections, self._owner) as streams:
            start = self._start if many.unary else streams.start
            window: deque[_Run] = deque()
            try:
                for steps in _described(many, many.inputs):
                    window.append(_Run(steps, self._do, start))
                    while window and (len(window) >= many.in_flight or window[0].wait.done()):
                        yield window.popleft().finish()
                while window:
                    yield window.popleft().finish()
            finally:
                for left in window:
                    left.wait.cancel()


class _Run:
    """One run of a pipeline, asked for when it is made.

    Args:
        steps: What it consists of, or why there is none.
        do: Does what the run needs besides asking the model.
        start: Asks the model.
    """

    def __init__(self, steps: Steps[Prediction] | Exception, do: Callable[[Step], Any], start: Start) -> None:
        self._do = do
        self._start = start
        self._refused: Exception | None = None
        self.wait = NOTHING
        try:
            if isinstance(steps, Exception):
                raise steps
            self._steps = steps
            self.wait = self._begin()
        except Exception as error:  # noqa: BLE001 - raised where its answer is due, after those of earlier inputs
            self._refused = error

    def _begin(self) -> Wait:
        step = next(self._steps)
        while not _asks_model(step):
            step = _next(self._steps, partial(self._do, step))
        return self._start(step)

    def finish(self) -> Prediction | PredictdError:
        """Wait for the answer; a request that is to be repeated is repeated now. Raises what is no answer."""
        try:
            if self._refused is not None:
                raise self._refused
            return _drive(self._steps, self._repeat, self.wait.result)
        except PredictdError as error:
            return error

    def _repeat(self, step: Step) -> Any:
        return self._start(step).result() if _asks_model(step) else self._do(step)


def _described(many: Many, inputs: Iterable[Inputs]) -> Iterator[Steps[Prediction] | Exception]:
    """The runs of a pipeline; the last one is what the caller's iterator raised."""
    source = iter(inputs)
    while True:
        try:
            one = next(source)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - raised after the answers of earlier inputs
            yield error
            return
        yield many.describe(one)


def _asks_model(step: Step) -> TypeGuard[Ask]:
    return isinstance(step, Ask) and step.method is calls.PREDICT


def _drive(steps: Steps[T], do: Callable[[Step], Any], action: Callable[[], Any]) -> T:
    """Do as the steps say, this action first."""
    try:
        while True:
            action = partial(do, _next(steps, action))
    except StopIteration as done:
        result: T = done.value
        return result


def _next(steps: Steps[T], action: Callable[[], Any]) -> Step:
    """Do something; the step that follows from what came of it."""
    try:
        answer = action()
    except grpc.RpcError as error:
        return steps.throw(errors.from_rpc(error))
    except grpc.FutureCancelledError as error:
        cancelled = errors.closed()
        cancelled.__cause__ = error
        return steps.throw(cancelled)
    except PredictdError as error:
        return steps.throw(error)
    return steps.send(answer)
