"""Bidirectional streams of requests and answers: many in flight, a bound on how many, an end that loses none.

A request is read only when fewer than `IN_FLIGHT_MAX` of its stream are unanswered, and counts until its answer is
written: a client that does not read its answers is not read from. What a connection has unread is bounded in bytes,
too: see `frontend/unread.py`.

One task reads and one writes. A request has no task of its own unless there is more to be waited for than its answer:
whoever reads its completion encodes the answer and puts it where the writer finds it. A client that cancels, cancels
all that it has asked for.

On shutdown the streams are not cut: each stops reading, answers what it has read, and ends with UNAVAILABLE,
from which the client knows that what has no answer was not accepted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from predictd.server.errors import OverloadedError
from predictd.server.frontend.unread import COUNTED_BYTES
from predictd.server.frontend.uploads import Uploads

if TYPE_CHECKING:
    from predictd.server.frontend.apis.rpc import Context
    from predictd.server.frontend.inference import InferResponse
    from predictd.server.frontend.pending import Pending
    from predictd.server.frontend.unread import Turn, Unread

IN_FLIGHT_MAX = 256


class Slot:
    """One request of a stream until its answer is written.

    Attributes:
        message: The encoded answer, once it is there.
        pending: To be abandoned when the client goes first.
        turn: Its part in what the client has unread.
    """

    __slots__ = ("_stream", "message", "pending", "turn")

    def __init__(self, stream: _Stream, turn: Turn | None) -> None:
        self._stream = stream
        self.message: bytes | None = None
        self.pending: Pending | None = None
        self.turn = turn

    def fill(self, message: bytes) -> None:
        """The answer, or the message that says why there is none."""
        self.message = message
        self.pending = None
        self._stream.filled(self)

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Fill it by a task."""
        self._stream.tasks.create_task(coroutine)


# Takes a request's bytes and sees to it that the slot is filled. Does not raise.
Take: TypeAlias = Callable[[bytes, Slot], None]


class SlotReply:
    """Fills a slot with what becomes of a request.

    Args:
        slot: Of the request.
        encode: An answer as a message; what it raises is encoded, too.
        encode_error: A failure as a message.
    """

    __slots__ = ("_encode", "_encode_error", "_slot")

    def __init__(
        self,
        slot: Slot,
        encode: Callable[[InferResponse], bytes],
        encode_error: Callable[[Exception], bytes],
    ) -> None:
        self._slot = slot
        self._encode = encode
        self._encode_error = encode_error

    def answer(self, response: InferResponse) -> None:
        """As of `Reply`."""
        try:
            message = self._encode(response)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
            message = self._encode_error(error)
        self._slot.fill(message)

    def fail(self, error: Exception) -> None:
        """As of `Reply`."""
        self._slot.fill(self._encode_error(error))

    def resume(self, response: Coroutine[Any, Any, InferResponse]) -> None:
        """As of `Reply`."""
        self._slot.run(self._wait(response))

    async def _wait(self, response: Coroutine[Any, Any, InferResponse]) -> None:
        try:
            answer = await response
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
            self.fail(error)
        else:
            self.answer(answer)


class Streams:
    """The open streams of a server.

    Args:
        unread: Counts what clients have not read; without it nothing does.
        uploads: Counts what clients are sending; without it nothing does.
    """

    def __init__(self, unread: Unread | None = None, uploads: Uploads | None = None) -> None:
        self._unread = unread
        self._uploads = uploads or Uploads()
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False

    def close(self) -> None:
        """Read no more requests, now or later. Each stream ends when all that it read is answered."""
        self._closed = True
        for reader in self._readers:
            reader.cancel()

    async def serve(self, context: Context, take: Take, *, in_order: bool) -> None:
        """Serve one stream to its end.

        Args:
            context: Of the call.
            take: Called with each request.
            in_order: Answers are written in the order of the requests, not as they come.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                stream = _Stream(context, take, tasks, self._unread, self._uploads, in_order=in_order)
                reader = tasks.create_task(stream.read())
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
                reader.add_done_callback(stream.read_all)
                if self._closed:
                    reader.cancel()
                try:
                    await stream.write()
                finally:
                    stream.abandon()
        except BaseExceptionGroup as failed:
            overload, _ = failed.split(OverloadedError)
            if overload is not None:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(overload.exceptions[0]))
            # A write to a client that has gone, which gRPC knows how to end when it is not wrapped.
            raise failed.exceptions[0] from None
        if reader.cancelled():
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "the server is shutting down; requests without an answer were not accepted",
            )


class _Stream:
    """One stream: its requests from reading to writing.

    Attributes:
        tasks: Of the requests that need one.
    """

    def __init__(
        self,
        context: Context,
        take: Take,
        tasks: asyncio.TaskGroup,
        unread: Unread | None,
        uploads: Uploads,
        *,
        in_order: bool,
    ) -> None:
        self._context = context
        self._take = take
        self.tasks = tasks
        self._unread = unread
        self._uploads = uploads
        self._peer = context.peer()
        self._in_order = in_order
        self._loop = asyncio.get_running_loop()
        self._open: set[Slot] = set()
        # In the order in which they are written.
        self._queue: deque[Slot] = deque()
        self._read_all = False
        self._room: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None

    async def read(self) -> None:
        """Read requests until the client sends no more."""
        unread = self._unread
        while True:
            if len(self._open) >= IN_FLIGHT_MAX:
                self._room = self._loop.create_future()
                await self._room
            data = await self._uploads.read(self._context, of_stream=True)
            if not isinstance(data, bytes):
                return
            turn = await unread.turn(self._peer) if unread is not None and unread.counts else None
            slot = Slot(self, turn)
            self._open.add(slot)
            if self._in_order:
                self._queue.append(slot)
            self._take(data, slot)
            # Nor does a large one stay until the next comes.
            del data, slot

    def read_all(self, _: object) -> None:
        """No more requests come."""
        self._read_all = True
        self._wake()

    def filled(self, slot: Slot) -> None:
        """A slot has its answer."""
        if slot not in self._open:
            return
        size_bytes = len(slot.message or b"")
        if slot.turn is not None:
            slot.turn.answered(size_bytes)
        elif self._unread is not None and size_bytes >= COUNTED_BYTES:
            slot.turn = self._unread.already_answered(self._peer, size_bytes)
        if not self._in_order:
            self._queue.append(slot)
        self._wake()

    async def write(self) -> None:
        """Write answers until there are no more to come."""
        while self._open or not self._read_all:
            await self._write_ready()
            if self._open or not self._read_all:
                self._news = self._loop.create_future()
                await self._news

    async def _write_ready(self) -> None:
        while self._queue and (message := self._queue[0].message) is not None:
            slot = self._queue.popleft()
            await self._context.write(message)
            self._close(slot)
            if self._room is not None and not self._room.done():
                self._room.set_result(None)

    def abandon(self) -> None:
        """The stream has ended: nobody waits for what is left."""
        for slot in list(self._open):
            self._close(slot)
            if slot.pending is not None:
                slot.pending.abandon()

    def _close(self, slot: Slot) -> None:
        self._open.discard(slot)
        if slot.turn is not None:
            slot.turn.done()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
