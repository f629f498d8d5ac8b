"""One call as its handler sees it: what grpc.aio's context is, on the C half's connections."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from predictd.server.frontend.native import metadata
from predictd.server.frontend.native.inflate import UnreadableMessageError, inflate

if TYPE_CHECKING:
    from predictd.native import Native

_NO_DEADLINE = 0
# The C half is a few messages ahead, and is told at the latest after so many that they were read.
_READ_UNTOLD_MAX = 4


class CallAbortedError(BaseException):
    """Ends a handler whose call has its status.

    No Exception: handlers make a status of whatever those are, and log what they do not know.
    """


class Call:
    """One call. Made and used on the event loop.

    Args:
        native: Sends.
        number: By which the C half knows it.
        deadline_ns: In CLOCK_MONOTONIC, 0 for none.
        path: Of its method, with the slash before it.
        fields: What came with it.
        peer: Whose it is.
        identity: By its certificate, as fields.
        message_bytes_max: What a message may come to.
        serialize: From an answer to bytes; None where they are bytes.
    """

    __slots__ = (
        "_callbacks",
        "_code",
        "_deadline_ns",
        "_details",
        "_gone",
        "_half_closed",
        "_message_bytes_max",
        "_messages",
        "_metadata",
        "_native",
        "_number",
        "_peer",
        "_read",
        "_reader",
        "_status_sent",
        "_tokens",
        "_trailers",
        "_writers",
        "deserialize",
        "fields",
        "identity",
        "path",
        "serialize",
        "task",
    )

    def __init__(
        self,
        native: Native,
        number: int,
        deadline_ns: int,
        path: str,
        fields: bytes,
        peer: str,
        identity: bytes,
        message_bytes_max: int,
    ) -> None:
        self._native = native
        self._number = number
        self._deadline_ns = deadline_ns
        self.path = path
        self.fields = fields
        self._peer = peer
        self.identity = identity
        self._message_bytes_max = message_bytes_max
        self._metadata: metadata.Metadata | None = None
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._read = 0
        self._half_closed = False
        self._gone = False
        self._status_sent = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: dict[int, asyncio.Future[None]] = {}
        self._tokens = 0
        self._callbacks: list[Callable[[Any], None]] = []
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self.serialize: Callable[[Any], bytes] | None = None
        self.deserialize: Callable[[bytes], Any] | None = None
        self.task: asyncio.Task[None] | None = None

    # What comes -----------------------------------------------------------------------------------------------

    def on_message(self, data: bytes, *, compressed: bool) -> None:
        """A message has come."""
        self._messages.append((data, compressed))
        self._wake_reader()

    def on_half_closed(self) -> None:
        """The client sends no more."""
        self._half_closed = True
        self._wake_reader()

    def on_written(self, token: int) -> None:
        """A message is on its way."""
        writer = self._writers.pop(token, None)
        if writer is not None and not writer.done():
            writer.set_result(None)

    def on_gone(self) -> None:
        """The call has ended for its client, with an answer or without."""
        self._gone = True
        if self.task is not None:
            self.task.cancel()
        for waiting in (*self._writers.values(), self._reader):
            if waiting is not None:
                waiting.cancel()
        self._writers.clear()
        for callback in self._callbacks:
            callback(self)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        if not self._messages:
            if self._half_closed:
                return grpc.aio.EOF
            self._tell_read(hungry=True)
            await self._wait()
            if not self._messages:
                return grpc.aio.EOF
        elif self._read >= _READ_UNTOLD_MAX:
            self._tell_read(hungry=False)
        data, compressed = self._messages.popleft()
        self._read += 1
        if compressed:
            try:
                data = inflate(data, metadata.encoding(self.fields), self._message_bytes_max)
            except UnreadableMessageError as error:
                await self.abort(error.code, str(error))
        return data if self.deserialize is None else self.deserialize(data)

    def _tell_read(self, *, hungry: bool) -> None:
        self._native.read(self._number, self._read, hungry)
        self._read = 0

    async def _wait(self) -> None:
        if self._gone:
            raise asyncio.CancelledError("the call has ended")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    # What goes ------------------------------------------------------------------------------------------------

    async def write(self, message: Any) -> None:
        """Send a message. Returns once the client was ready for it."""
        data = message if self.serialize is None else self.serialize(message)
        if self._gone:
            raise asyncio.CancelledError("the call has ended")
        self._tokens = token = self._tokens + 1
        writer = self._writers[token] = asyncio.get_running_loop().create_future()
        self._native.send_message(self._number, token, data)
        try:
            await writer
        finally:
            self._writers.pop(token, None)

    def answer(self, message: Any) -> None:
        """Send the one answer of a call, and its status."""
        data = message if self.serialize is None else self.serialize(message)
        if len(data) > self._message_bytes_max:
            self.end(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"CLIENT: Sent message larger than max ({len(data)} vs. {self._message_bytes_max})",
            )
            return
        if self._code is None and not self._trailers:
            self._status_sent = True
            self._native.send_answer(self._number, 0, data)
            return
        if self._code in (None, grpc.StatusCode.OK):
            self._native.send_message(self._number, 0, data)
        self.finish()

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        """Send the status, unless one was sent."""
        if self._status_sent:
            return
        number, _ = code.value
        # What cannot be written in UTF-8, a file's name perhaps, is no reason to leave the client without a status.
        text = details.encode(errors="backslashreplace")
        trailers = metadata.pack(self._trailers) if self._trailers else b""
        self._status_sent = True
        self._native.send_status(self._number, number, text, trailers)

    def finish(self) -> None:
        """The handler has ended a call whose answers it wrote."""
        self.end(self._code or grpc.StatusCode.OK, self._details)

    async def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send headers before the first message."""
        self._native.send_headers(self._number, metadata.pack(initial_metadata))

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status that is not OK."""
        if trailing_metadata:
            self._trailers = tuple(trailing_metadata)
        self.end(code, details)
        raise CallAbortedError

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """What is sent behind the last message."""
        self._trailers = tuple(trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status that the call ends with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """What the status says."""
        self._details = details

    # What is known --------------------------------------------------------------------------------------------

    def invocation_metadata(self) -> metadata.Metadata:
        """What the client sent with the call."""
        if self._metadata is None:
            self._metadata = metadata.unpack(self.fields)
        return self._metadata

    def peer(self) -> str:
        """The client, as gRPC writes it."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the client's certificate says, by gRPC's names; empty without one."""
        return metadata.grouped(self.identity)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        if self._deadline_ns == _NO_DEADLINE:
            return None
        return max(self._deadline_ns - time.monotonic_ns(), 0) / 1e9

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have something called when the call has ended for its client."""
        if self._gone:
            callback(self)
        else:
            self._callbacks.append(callback)

    def cancelled(self) -> bool:
        """The client has gone before it had a status."""
        return self._gone and not self._status_sent

    def done(self) -> bool:
        """The call has ended for its client."""
        return self._gone
