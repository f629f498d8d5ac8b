"""Requests of the blocking client over streams: a thread of each stream hands out its answers."""

from __future__ import annotations

import queue
import threading
import time
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc

from predictd.client import calls, errors
from predictd.client.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from predictd.client.calls import Ask, Method
    from predictd.client.channel import Metadata
    from predictd.client.connections import Connection, Connections, Owner

    Start = Callable[[Ask], "Wait"]


@dataclass(frozen=True, slots=True)
class Wait:
    """A request that was sent.

    Attributes:
        result: Waits for the answer, until the deadline.
        done: There is an answer, or an error.
        cancel: Gives it up.
    """

    result: Callable[[], Any]
    done: Callable[[], bool]
    cancel: Callable[[], object]


def unary(connection: Connection[grpc.Channel], method: Method) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
    """A method on a connection."""
    found = connection.methods.get(method.path)
    if found is None:
        found = connection.channel.unary_unary(method.path, request_serializer=method.write)
        connection.methods[method.path] = found
    return found


class Streams:
    """A stream on each connection that is used. As a context: they end with it."""

    def __init__(self, connections: Connections[grpc.Channel], owner: Callable[[], Owner]) -> None:
        self._connections = connections
        self._owner = owner
        self._streams: dict[Connection[grpc.Channel], _Stream] = {}

    def start(self, ask: Ask) -> Wait:
        """Send a request; what waits for its answer."""
        connection = self._connections.take(self._owner())
        stream = self._streams.get(connection)
        if stream is None or stream.ledger.is_over:
            stream = self._streams[connection] = _Stream(connection, ask.metadata)
        future: futures.Future[Any] = futures.Future()
        future.add_done_callback(lambda done: connection.done(done.exception()))
        finish = time.monotonic() + ask.seconds
        stream.ledger.add(ask.request, future, stream.send)

        def result() -> Any:
            try:
                return future.result(max(finish - time.monotonic(), 0))
            except futures.TimeoutError:
                raise errors.too_late(ask.seconds) from None

        return Wait(result, future.done, lambda: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()


class _Stream:
    """One PredictStream. gRPC reads the outbox in a thread of its own, so that sending never waits."""

    def __init__(self, connection: Connection[grpc.Channel], metadata: Metadata) -> None:
        method = calls.PREDICT_STREAM
        open_stream: grpc.StreamStreamMultiCallable[bytes, bytes] = connection.channel.stream_stream(
            method.path, request_serializer=method.write
        )
        self.ledger = Ledger()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = open_stream(self._requests(), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="predictd-stream", daemon=True)
        self._reader.start()

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._outbox.put(message)

    def close(self) -> None:
        """End the stream, whatever it owes."""
        self._call.cancel()
        self._reader.join()

    def _requests(self) -> Iterator[bytes]:
        while (message := self._outbox.get()) is not None:
            yield message

    def _read(self) -> None:
        failure: errors.PredictdError | None = None
        try:
            for data in self._call:
                self.ledger.settle(*calls.PREDICT_STREAM.read(data))
        except grpc.RpcError as error:
            failure = errors.from_rpc(error)
        except errors.PredictdError as error:
            failure = error
        self.ledger.end(failure)
        self._outbox.put(None)
        self._call.cancel()
