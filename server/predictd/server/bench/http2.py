"""A client's side of HTTP/2, as much of it as gRPC calls of prepared messages need.

A call through grpcio costs a Python client about as much CPU as it costs the server, so on a small machine
such a client measures itself. This one writes prepared frames and reads the answers' frames, for a fraction
of that. It obeys the server's flow control and limits, answers PING and SETTINGS, and looks at every status. TLS
is its transport's.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from typing import cast

from typing_extensions import override

from predictd.server.bench.dialects import Dialect
from predictd.server.bench.events import Call, Events
from predictd.server.bench.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEADERS,
    HELLO,
    PING,
    PREFIX_BYTES,
    RST_STREAM,
    SETTING,
    SETTING_FRAME_BYTES,
    SETTING_STREAMS,
    SETTING_TABLE,
    SETTING_WINDOW,
    SETTINGS,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    WINDOW_UPDATE,
    content,
    frame,
    prefixed,
)
from predictd.server.bench.hpack import HpackError, RequestHeaders, grpc_status

_UNLIMITED = 2**31
# Blocks repeat, so each is decoded once; the bound is for a server that puts a clock into them.
_BLOCKS_KEPT_MAX = 64


class _Stream:
    __slots__ = ("answer", "call", "have", "number", "size", "unsent", "wanted", "window")

    def __init__(self, number: int, call: Call | None, window: int) -> None:
        self.number = number
        # None for one that carries many.
        self.call = call
        self.window = window
        self.answer: list[bytes] = []
        self.have = 0
        # Of one that carries many: bytes of `answer`, and how many it must have until there is a message.
        self.size = 0
        self.wanted = PREFIX_BYTES
        # What the windows did not allow: most streams never have any.
        self.unsent: deque[memoryview | bytes] | None = None


class Connection(asyncio.Protocol):
    """One connection. What is started goes out with `flush`.

    Args:
        events: Who is told.
        dialect: The API; says whether calls are messages of one stream.
        headers: Of each call.
    """

    def __init__(self, events: Events, dialect: Dialect, headers: RequestHeaders) -> None:
        self._events = events
        self._dialect = dialect
        self._request_headers = headers
        self._first_block, self._block = headers.blocks()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes | memoryview] = [HELLO]
        self._streams: dict[int, _Stream] = {}
        self._waiting: deque[tuple[Call, bytes]] = deque()
        self._blocked: list[_Stream] = []
        # Of a dialect with one stream: by the id of the request.
        self._by_id: dict[str, Call] = {}
        self._carrier: _Stream | None = None
        self._next_id = 0
        self._next_stream = 1
        # As long as the server has not said its own.
        self._streams_max = 0
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._heard_settings = False
        self._window = WINDOW_BYTES_DEFAULT
        self._window_of_streams = WINDOW_BYTES_DEFAULT
        self._received = 0
        self._headers: tuple[int, int, bytes] | None = None
        self._good_trailers: set[bytes] = set()
        self._over = False

    @property
    def in_flight(self) -> int:
        """Calls that are not answered, those that wait here for the server's limit among them."""
        calls = len(self._by_id) if self._dialect.streams else len(self._streams)
        return calls + len(self._waiting)

    def start(self, call: Call, message: bytes) -> None:
        """Send a message, which `prefixed` made unless the dialect streams, or have it wait for its turn."""
        if self._dialect.streams:
            self._send_on_stream(call, message)
        elif len(self._streams) < self._streams_max:
            self._queue(self._open(call), message)
        else:
            self._waiting.append((call, message))

    def flush(self) -> None:
        """Write all that is to be sent, at once."""
        if self._blocked:
            self._pump()
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        """Leave; the owner is told nothing more."""
        self._over = True
        if self._transport is not None:
            # Not `close`, which waits over TLS until the server has said goodbye, too.
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._over:
            transport.close()
            return
        self.flush()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._over = True
            self._events.lost(self, str(exc or "closed by the server"), self.in_flight)

    @override
    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        now = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        at, size, unpack = 0, len(data), FRAME.unpack_from
        while size - at >= 9:
            word, flags, stream = unpack(data, at)
            end = at + 9 + (word >> 8)
            if end > size:
                break
            self._frame(word & 255, flags, stream, data[at + 9 : end], now)
            at = end
        self._rest = data[at:]
        self._events.turn(self, now)
        self.flush()

    # Sending ----------------------------------------------------------------------------------------------

    def _open(self, call: Call | None) -> _Stream:
        number = self._next_stream
        self._next_stream = number + 2
        stream = self._streams[number] = _Stream(number, call, self._window_of_streams)
        block, self._first_block = self._first_block, self._block
        self._out += (FRAME.pack(len(block) << 8 | HEADERS, END_HEADERS, number), block)
        return stream

    def _queue(self, stream: _Stream, message: bytes) -> None:
        size = len(message)
        free = size <= self._frame_bytes_max and size <= self._window and size <= stream.window
        if free and not stream.unsent:
            self._window -= size
            stream.window -= size
            flags = 0 if stream.call is None else END_STREAM
            self._out += (FRAME.pack(size << 8 | DATA, flags, stream.number), message)
            return
        if stream.unsent is None:
            stream.unsent = deque()
        if not stream.unsent:
            self._blocked.append(stream)
        stream.unsent.append(memoryview(message))

    def _pump(self) -> None:
        """Send what the server's windows allow, of one stream after the other."""
        for stream in self._blocked:
            self._send_some(stream)
        self._blocked = [stream for stream in self._blocked if stream.unsent]

    def _send_some(self, stream: _Stream) -> None:
        while stream.unsent:
            rest = stream.unsent[0]
            size = min(len(rest), self._frame_bytes_max, self._window, stream.window)
            if size <= 0:
                return
            last = size == len(rest)
            flags = END_STREAM if last and stream.call is not None else 0
            self._out += (FRAME.pack(size << 8 | DATA, flags, stream.number), rest[:size])
            self._window -= size
            stream.window -= size
            if last:
                stream.unsent.popleft()
            else:
                stream.unsent[0] = rest[size:]

    def _send_on_stream(self, call: Call, message: bytes) -> None:
        if self._carrier is None:
            self._carrier = self._open(None)
        name = str(self._next_id)
        self._next_id += 1
        self._by_id[name] = call
        self._queue(self._carrier, prefixed(self._dialect.named(message, name)))

    # Receiving --------------------------------------------------------------------------------------------

    def _frame(self, kind: int, flags: int, number: int, body: bytes, now_ns: int) -> None:
        if kind == DATA:
            self._data(flags, number, body, now_ns)
        elif kind == HEADERS and flags == END_HEADERS:
            return  # those before an answer do not tell its status
        elif kind in (HEADERS, CONTINUATION):
            self._header_block(kind, flags, number, body, now_ns)
        elif kind == RST_STREAM:
            self._end(number, f"stream reset, code {int.from_bytes(body, 'big')}", now_ns)
        else:
            self._control(kind, flags, number, body)

    def _data(self, flags: int, number: int, body: bytes, now_ns: int) -> None:
        size = len(body)
        self._received += size
        if self._received > WINDOW_BYTES_MAX // 2:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        part = content(flags, body)
        stream.answer.append(part)
        stream.have += size
        if stream.call is None:
            stream.size += len(part)
            if stream.have > WINDOW_BYTES_MAX // 2:
                self._out.append(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", stream.have)))
                stream.have = 0
            # A large message comes in many frames, which are joined once.
            if stream.size >= stream.wanted:
                self._messages(stream, now_ns)
        if flags & END_STREAM:
            self._end(number, "ended without a status", now_ns)

    def _messages(self, stream: _Stream, now_ns: int) -> None:
        """Tell of the messages that are complete."""
        data = stream.answer[0] if len(stream.answer) == 1 else b"".join(stream.answer)
        at, stream.wanted = 0, PREFIX_BYTES
        while len(data) - at >= PREFIX_BYTES:
            end = at + PREFIX_BYTES + int.from_bytes(data[at + 1 : at + PREFIX_BYTES], "big")
            if end > len(data):
                stream.wanted = end - at
                break
            message = data[at + PREFIX_BYTES : end]
            name, reason = self._dialect.outcome(message)
            call = self._by_id.pop(name, None)
            if call is not None and reason:
                self._events.failed(call, reason, now_ns)
            elif call is not None:
                self._events.answered(call, message, now_ns)
            at = end
        stream.answer = [data[at:]] if at < len(data) else []
        stream.size = len(data) - at

    def _header_block(self, kind: int, flags: int, number: int, body: bytes, now_ns: int) -> None:
        if kind == HEADERS:
            started, block = flags, content(flags, body)
        else:
            before = self._headers
            if before is None or before[0] != number:
                raise ValueError("a header block continues that never began")
            started, block = before[1], before[2] + body
        if not flags & END_HEADERS:
            self._headers = (number, started, block)
            return
        self._headers = None
        if started & END_STREAM:
            self._end(number, self._status(block), now_ns)

    def _status(self, block: bytes) -> str:
        """What is wrong according to trailers; empty if nothing is."""
        if block in self._good_trailers:
            return ""
        try:
            status = grpc_status(block)
        except HpackError as error:
            return str(error)
        if status:
            return f"grpc-status {status}"
        if len(self._good_trailers) < _BLOCKS_KEPT_MAX:
            self._good_trailers.add(block)
        return ""

    def _end(self, number: int, reason: str, now_ns: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        stream.unsent = None
        if stream.call is None:
            self._carrier = None
            lost, self._by_id = self._by_id, {}
            for call in lost.values():
                self._events.failed(call, reason or "the stream ended", now_ns)
        elif reason:
            self._events.failed(stream.call, reason, now_ns)
        else:
            answer = stream.answer[0] if len(stream.answer) == 1 else b"".join(stream.answer)
            self._events.answered(stream.call, answer[PREFIX_BYTES:], now_ns)
        if self._waiting:
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._streams) < self._streams_max:
            call, message = self._waiting.popleft()
            self._queue(self._open(call), message)

    def _control(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == WINDOW_UPDATE:
            more = int.from_bytes(body, "big")
            if number == 0:
                self._window += more
            elif (stream := self._streams.get(number)) is not None:
                stream.window += more
        elif kind == PING:
            if not flags & ACK:
                self._out.append(frame(PING, ACK, 0, body))
        elif kind == SETTINGS:
            if not flags & ACK:
                self._settings(body)
        elif kind == GOAWAY:
            self._leave(int.from_bytes(body[:4], "big"))
        # Frames of a kind that is not known are to be ignored (RFC 9113, 4.1).

    def _settings(self, body: bytes) -> None:
        first, self._heard_settings = not self._heard_settings, True
        if first:
            self._streams_max = _UNLIMITED
        for name, value in SETTING.iter_unpack(body):
            if name == SETTING_STREAMS:
                self._streams_max = value
            elif name == SETTING_FRAME_BYTES:
                self._frame_bytes_max = value
            elif name == SETTING_TABLE and first:
                # Calls begin after this.
                self._first_block, self._block = self._request_headers.blocks(value)
            elif name == SETTING_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._window_of_streams
                self._window_of_streams = value
        self._out.append(frame(SETTINGS, ACK, 0, b""))
        self._start_waiting()
        if first:
            self._events.connected(self)

    def _leave(self, last_stream: int) -> None:
        untouched = [call for call, _ in self._waiting]
        self._waiting.clear()
        for number in [number for number in self._streams if number > last_stream]:
            stream = self._streams.pop(number)
            stream.unsent = None
            if stream.call is not None:
                untouched.append(stream.call)
            else:
                self._carrier = None
                untouched += self._by_id.values()
                self._by_id.clear()
        self._events.leaving(self, untouched)
