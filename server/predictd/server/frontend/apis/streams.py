"""Bidirectional streams of requests and answers: many in flight, a bound on how many, an end that loses none.

A request is read only when fewer than `IN_FLIGHT_MAX` of its stream are unanswered, and counts until its
answer is written: a client that does not read its answers is not read from. Each request is a task of its
own. All tasks of a stream are children of the call, so a client that cancels, cancels them all. What a connection
has unread is bounded in bytes, too: see `frontend/unread.py`.

On shutdown the streams are not cut: each stops reading, answers what it has read, and ends with UNAVAILABLE,
from which the client knows that what has no answer was not accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import grpc

from predictd.server.errors import OverloadedError
from predictd.server.frontend.uploads import Uploads

if TYPE_CHECKING:
    from predictd.server.frontend.apis.rpc import Context
    from predictd.server.frontend.unread import Turn, Unread

IN_FLIGHT_MAX = 256

Answer: TypeAlias = Callable[[bytes], Awaitable[bytes]]
Turns: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]


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

    async def serve(self, context: Context, answer: Answer, turns: Turns) -> None:
        """Serve one stream to its end.

        Args:
            context: Of the call.
            answer: From a request's bytes to the bytes of its answer or of its error message.
            turns: Called once for each request, in the order of the requests; the answer is written inside
                what it returns.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(_read(context, answer, turns, tasks, self._unread, self._uploads))
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
                if self._closed:
                    reader.cancel()
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


async def _read(
    context: Context,
    answer: Answer,
    turns: Turns,
    tasks: asyncio.TaskGroup,
    unread: Unread | None,
    uploads: Uploads,
) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT_MAX)
    peer = context.peer()

    async def serve(data: bytes, turn: AbstractAsyncContextManager[object], share: Turn | None) -> None:
        message = await answer(data)
        if share is not None:
            share.answered(len(message))
        async with turn:
            await context.write(message)
        slots.release()

    while True:
        await slots.acquire()
        data = await uploads.read(context, of_stream=True)
        if not isinstance(data, bytes):  # EOF: the client sends no more
            return
        share = None if unread is None else await unread.turn(peer)
        task = tasks.create_task(serve(data, turns(), share))
        if share is not None:
            # Not in the task itself: one that is cancelled before it begins never comes to its end.
            task.add_done_callback(share.done)


def completion_order() -> Turns:
    """Answers are written as they come."""
    writing = asyncio.Lock()
    return lambda: writing


def request_order() -> Turns:
    """Answers are written in the order of the requests, each as soon as those before it are."""
    done = asyncio.Event()
    done.set()

    def turn() -> _Turn:
        nonlocal done
        before, done = done, asyncio.Event()
        return _Turn(before, done)

    return turn


class _Turn:
    """Waits for the one before, tells the one after."""

    __slots__ = ("_before", "_done")

    def __init__(self, before: asyncio.Event, done: asyncio.Event) -> None:
        self._before = before
        self._done = done

    async def __aenter__(self) -> None:
        await self._before.wait()

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
