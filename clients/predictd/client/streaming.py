"""Many requests over one PredictStream.

A writer task takes requests from the caller and sends them, the generator reads answers and yields them. Flow
control couples the two: while the caller takes no answers, the daemon stops reading and the writer waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from predictd.client import aio_streams, calls, errors, messages, wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable

    from predictd.client.channel import Metadata
    from predictd.client.messages import Prediction, Request
    from predictd.protos.v1 import predictd_pb2 as v1

    Received = tuple[v1.PredictStreamResponse, wire.Answer | None]
    Method = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    Call = grpc.aio.StreamStreamCall[bytes, bytes]


class _Owed:
    """The ids that the daemon has to answer, and since when it owes the next one."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._since_seconds = 0.0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, request_id: str) -> None:
        if request_id in self._ids:
            raise ValueError(f"a request with id {request_id!r} is already in flight on this stream")
        if not self._ids:
            self.restart_clock()
        self._ids.add(request_id)

    def settle(self, request_id: str) -> None:
        if request_id not in self._ids:
            raise errors.InternalError(f"the daemon answered id {request_id!r}, which nothing waits for")
        self._ids.remove(request_id)

    def restart_clock(self) -> None:
        self._since_seconds = asyncio.get_running_loop().time()

    def patience_seconds(self, deadline_seconds: float) -> float:
        """How long to wait for the next answer. A request that is sent meanwhile has at least as long."""
        if not self._ids:
            return deadline_seconds
        return self._since_seconds + deadline_seconds - asyncio.get_running_loop().time()


async def exchange(
    method: Method, requests: AsyncIterable[Request], deadline_seconds: float, metadata: Metadata
) -> AsyncGenerator[tuple[str, Prediction | errors.PredictdError], None]:
    """Send the requests and yield the answers; see `AsyncClient.predict_stream`."""
    call = method(metadata=metadata)
    owed = _Owed()
    writer = asyncio.create_task(_send(call, requests, owed))
    try:
        while True:
            owed.restart_clock()
            received = await _receive(call, writer, owed, deadline_seconds)
            if received is None:
                break
            message, answer = received
            owed.settle(message.id)
            yield message.id, messages.result(message, answer)
        if owed:
            raise errors.InternalError(
                f"the daemon ended the stream and left {len(owed)} requests unanswered"
            )
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from error
    except asyncio.CancelledError as cancelled:
        raise aio_streams.as_error(cancelled) from cancelled
    finally:
        call.cancel()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def _send(call: Call, requests: AsyncIterable[Request], owed: _Owed) -> None:
    number = 0
    async for request in requests:
        request_id = request.id or str(number)
        message = wire.join(messages.parts(dataclasses.replace(request, id=request_id)))
        owed.add(request_id)
        try:
            await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # The stream is over; whoever reads it learns why.
        number += 1
    await call.done_writing()


async def _receive(
    call: Call, writer: asyncio.Task[None], owed: _Owed, deadline_seconds: float
) -> Received | None:
    """Return the next answer, None at the end. Raises what the caller's own iterator raised."""
    reader = asyncio.ensure_future(call.read())
    try:
        while not reader.done():
            if writer.done():
                writer.result()
            waiting: set[asyncio.Future[Any]] = {reader} if writer.done() else {reader, writer}
            patience_seconds = owed.patience_seconds(deadline_seconds)
            if patience_seconds <= 0:
                raise errors.DeadlineExceededError(
                    f"no answer came for {deadline_seconds:g} s, {len(owed)} are owed",
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
            await asyncio.wait(waiting, timeout=patience_seconds, return_when=asyncio.FIRST_COMPLETED)
        received = reader.result()
    finally:
        reader.cancel()
    return calls.PREDICT_STREAM.read(received) if isinstance(received, bytes) else None
