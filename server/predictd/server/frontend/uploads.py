"""Messages that are being received: a bound on the memory that they take together.

Until a message is whole nobody but gRPC has it, and gRPC takes as much of each as its client sends. A client that
begins many large messages and ends none would fill the front end's memory. gRPC tells of none of that, so this looks
at the memory of the process: while that has grown by more than the limit, calls end whose message takes long.

What a call waits for between two messages of a stream is nothing that can be told from a message that does not end.
So those of one message go first, the longest first; then streams, and of these the last to wait first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import grpc
from typing_extensions import override

from predictd.engines.heap import trim_heap
from predictd.server.errors import OverloadedError
from predictd.server.observe.processes import memory

if TYPE_CHECKING:
    from predictd.server.frontend.apis.rpc import Context

CHECK_SECONDS: Final = 0.1
# At once at most: what the first ones give back is seen at the next look.
_ENDED_AT_ONCE = 64
_TRIM_CHECKS = 100
_TRIM_BYTES = 64 * 2**20

Task: TypeAlias = "asyncio.Task[Any]"


def anonymous_bytes() -> int:
    """Memory of this process that is backed by no file and shared with nobody."""
    pid = os.getpid()
    return memory((pid,))[pid].anonymous_bytes


class Uploads:
    """The calls of a front end that wait for a message. Runs on the event loop alone.

    Args:
        limit_bytes: By how much the process may grow while messages are received; 0 for any.
        measure: How large it is.
        trim: Has the C library give back what was freed.
    """

    def __init__(
        self,
        limit_bytes: int = 0,
        measure: Callable[[], int] = anonymous_bytes,
        trim: Callable[[], None] = trim_heap,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._measure = measure
        self._trim = trim
        self._messages: dict[Task, None] = {}
        self._streams: dict[Task, None] = {}
        # Those that were there at the last look, and those that are ended.
        self._slow: set[Task] = set()
        self._ended: set[Task] = set()
        self._least_bytes = 0
        self._smallest_bytes = 0
        self._checks = 0
        self._looks_since_growth = 0

    async def read(self, context: Context, *, of_stream: bool = False) -> object:
        """The next message of a call; not bytes if there is none.

        Raises:
            OverloadedError: It took long, and there is no memory left for it.
        """
        task = cast("Task", asyncio.current_task())
        waiting = self._streams if of_stream else self._messages
        waiting[task] = None
        try:
            return await context.read()
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise OverloadedError(
                "messages that are being received take more than "
                f"{self._limit_bytes} bytes (upload_limit), and this one takes long"
            ) from None
        finally:
            del waiting[task]
            self._ended.discard(task)

    def watch(self, loop: asyncio.AbstractEventLoop, idle: Callable[[], bool]) -> None:
        """Look now and then, from now on.

        Args:
            loop: Of the front end.
            idle: Nothing is in hand, so that the C library can be told to give memory back.
        """
        self._least_bytes = self._smallest_bytes = self._measure()

        def look() -> None:
            self.check()
            if self.trims() and idle():
                # It may take some tens of milliseconds.
                loop.run_in_executor(None, self._trim)
            loop.call_later(CHECK_SECONDS, look)

        loop.call_later(CHECK_SECONDS, look)

    def check(self) -> None:
        """End what takes long, if the process has grown too much."""
        waiting = (*self._messages, *reversed(self._streams))
        if not waiting or not self._limit_bytes:
            self._slow.clear()
            return
        slow = [task for task in waiting if task in self._slow and task not in self._ended]
        self._slow = set(waiting)
        if slow and self._measure() - self._least_bytes > self._limit_bytes:
            for task in slow[:_ENDED_AT_ONCE]:
                self._ended.add(task)
                task.cancel()

    def trims(self) -> bool:
        """Whether the process has grown and nothing is received: every tenth second at most, later more rarely."""
        self._checks += 1
        if self._checks < _TRIM_CHECKS or self._messages:
            return False
        self._checks = 0
        size_bytes = self._measure()
        if size_bytes - self._least_bytes > _TRIM_BYTES:
            self._looks_since_growth = 0
        else:
            self._looks_since_growth += 1
        # What is still there after a trim is in use, ...
        self._least_bytes = min(size_bytes, max(self._least_bytes, size_bytes - _TRIM_BYTES))
        self._smallest_bytes = min(size_bytes, self._smallest_bytes)
        # ... and may be free later, as that of connections is: again after one look, three, seven, and so on.
        looks = self._looks_since_growth
        return size_bytes - self._smallest_bytes > _TRIM_BYTES and looks & (looks + 1) == 0


class Received(grpc.GenericRpcHandler):
    """A service whose methods of one request read it like those of many, so that it counts.

    Args:
        service: That is called.
        uploads: Counts.
    """

    def __init__(self, service: grpc.GenericRpcHandler, uploads: Uploads) -> None:
        self._service = service
        self._uploads = uploads

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """A handler of a method. The registry asks once and keeps it."""
        handler: Any = self._service.service(handler_call_details)
        if handler is not None and not handler.request_streaming:
            if handler.response_streaming:
                handler = grpc.stream_stream_rpc_method_handler(self._many(handler.unary_stream))
            else:
                handler = grpc.stream_unary_rpc_method_handler(self._one(handler.unary_unary))
        return handler

    async def _request(self, context: Context) -> bytes:  # noqa: RET503 - abort raises
        try:
            data = await self._uploads.read(context)
        except OverloadedError as error:
            reason, code = str(error), grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            if isinstance(data, bytes):
                return data
            reason, code = "the call ended without a request", grpc.StatusCode.INVALID_ARGUMENT
        await context.abort(code, reason)

    def _one(self, handle: Callable[[bytes, Context], Awaitable[bytes]]) -> Any:
        async def received(_: object, context: Context) -> bytes:
            return await handle(await self._request(context), context)

        return received

    def _many(self, handle: Callable[[bytes, Context], AsyncIterator[bytes]]) -> Any:
        async def received(_: object, context: Context) -> AsyncIterator[bytes]:
            async for answer in handle(await self._request(context), context):
                yield answer

        return received
