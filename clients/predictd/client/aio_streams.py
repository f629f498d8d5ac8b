"""Requests of the asyncio client over streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from predictd.client import calls, errors
from predictd.client.calls import Ask
from predictd.client.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from predictd.client.calls import Method, Step
    from predictd.client.channel import Metadata
    from predictd.client.connections import Connection, Connections, Owner

    Channel = grpc.aio.Channel


def unary(connection: Connection[Channel], method: Method) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
    """A method on a connection."""
    found = connection.methods.get(method.path)
    if found is None:
        found = connection.channel.unary_unary(method.path, request_serializer=method.write)
        connection.methods[method.path] = found
    return found


def stream(connection: Connection[Channel]) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
    """PredictStream on a connection."""
    method = calls.PREDICT_STREAM
    return connection.channel.stream_stream(method.path, request_serializer=method.write)


class Streams:
    """A stream on each connection that is used. As a context: they end with it.

    Args:
        connections: Those of the client.
        owner: Whose they are.
        do: Does what is no request to a model.
    """

    def __init__(
        self,
        connections: Connections[Channel],
        owner: Callable[[], Owner],
        do: Callable[[Step], Coroutine[Any, Any, Any]],
    ) -> None:
        self._connections = connections
        self._owner = owner
        self._do = do
        self._streams: dict[Connection[Channel], _Stream] = {}

    async def do(self, step: Step) -> Any:
        """Do a step; requests to models go over the streams."""
        if not isinstance(step, Ask) or step.method is not calls.PREDICT:
            return await self._do(step)
        with self._connections.take(self._owner()) as connection:
            opened = self._streams.get(connection)
            if opened is None or opened.ledger.is_over:
                opened = self._streams[connection] = _Stream(connection, step.metadata)
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            opened.ledger.add(step.request, future, opened.send)
            try:
                return await asyncio.wait_for(future, step.seconds)
            except TimeoutError:
                raise errors.too_late(step.seconds) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for opened in self._streams.values():
            await opened.close()


class _Stream:
    """One PredictStream: a task writes, since the daemon may not read, and one reads."""

    def __init__(self, connection: Connection[Channel], metadata: Metadata) -> None:
        self.ledger = Ledger()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._call = stream(connection)(metadata=metadata)
        self._writer = asyncio.create_task(self._write())
        self._reader = asyncio.create_task(self._read())

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._outbox.put_nowait(message)

    async def close(self) -> None:
        """End the stream, whatever it owes."""
        self._call.cancel()
        self._writer.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while True:
                await self._call.write(await self._outbox.get())
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # The stream is over; whoever reads it learns why.

    async def _read(self) -> None:
        # Where nothing else is learned, this task was cancelled, or the channel was closed.
        failure: errors.PredictdError | None = errors.closed()
        try:
            async for data in self._call:
                self.ledger.settle(*calls.PREDICT_STREAM.read(data))
            failure = None
        except grpc.RpcError as error:
            failure = errors.from_rpc(error)
        except errors.PredictdError as error:
            failure = error
        finally:
            self.ledger.end(failure)
            self._call.cancel()
            self._writer.cancel()


def as_error(cancelled: asyncio.CancelledError) -> errors.RequestCancelledError:
    """What a call ends with that gRPC cancelled. Raises the cancellation again if it is the caller's."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise cancelled
    return errors.closed()
