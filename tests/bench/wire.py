"""A load generator that speaks just enough HTTP/2 for unary gRPC calls with small bodies.

A call through grpcio costs a Python client about as much CPU as it costs the server, so on a small machine
such a client measures itself. This one writes prepared frames and reads the answers' frames, for a fraction
of that. It obeys the server's flow control, answers PING and SETTINGS, follows GOAWAY to a new connection,
and looks at every status.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, cast

from typing_extensions import override

from tests.bench.hpack import grpc_status, request_headers

if TYPE_CHECKING:
    from tests.bench.tally import Tally

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
_FRAME = struct.Struct(">IBI")  # length and type share the first word
_WINDOW_BYTES_MAX = 2**31 - 1
_WINDOW_BYTES_DEFAULT = 65535
_FRAME_BYTES_MAX = 16384
_SETTINGS_BODY = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, _WINDOW_BYTES_MAX)  # no table, no push, wide streams
_DRAIN_SECONDS = 10.0


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One frame as it travels."""
    return _FRAME.pack(len(body) << 8 | kind, flags, stream) + body


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HELLO = (
    PREFACE
    + frame(SETTINGS, 0, 0, _SETTINGS_BODY)
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_BYTES_MAX - _WINDOW_BYTES_DEFAULT))
)


class _Call:
    __slots__ = ("answer", "index", "started_ns")

    def __init__(self, index: int, started_ns: int) -> None:
        self.index = index
        self.started_ns = started_ns
        self.answer = b""


class _Run:
    """What the connections of one measurement share."""

    def __init__(self, target: str, method: str, tally: Tally) -> None:
        host, _, port = target.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.tally = tally
        self.first_block, self.block = request_headers(method, target)
        self.bodies = [b"\0" + struct.pack(">I", len(body)) + body for body in tally.payload.bodies]
        if max(len(body) for body in self.bodies) > _FRAME_BYTES_MAX:
            raise ValueError(f"the wire client sends requests of at most {_FRAME_BYTES_MAX - 5} bytes")
        self.good_trailers: set[bytes] = set()
        self.in_flight = 0
        self.finished = asyncio.get_running_loop().create_future()
        self._starting: set[asyncio.Task[object]] = set()

    def connect(self, calls: int) -> _Connection:
        """Open a connection that keeps `calls` in flight."""
        connection = _Connection(self, calls)
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: connection, *self.address)
        )
        self._starting.add(task)
        task.add_done_callback(self._started)
        return connection

    def _started(self, task: asyncio.Task[object]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.finished.done():
            self.finished.set_exception(error)

    def broken(self, reason: str) -> None:
        """The measurement failed as a whole."""
        self.tally.failed(reason)
        if not self.finished.done():
            self.finished.set_result(None)

    def settle(self) -> None:
        """Finish if the window ended with nothing in flight: asked after each chance to start a call."""
        if self.in_flight == 0 and self.tally.over(time.monotonic_ns()) and not self.finished.done():
            self.finished.set_result(None)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, calls: int) -> None:
        self._run = run
        self._wanted = calls
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._block = run.first_block
        self._send_window = _WINDOW_BYTES_DEFAULT
        self._received = 0
        self._successor: _Connection | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._out.append(_HELLO)
        self._fill()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        # After GOAWAY a connection without calls is over, and at the end we close all.
        if self._calls or not (self._successor or self._run.finished.done()):
            self._run.broken(f"connection lost with {len(self._calls)} calls in flight: {exc}")

    @override
    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        at, size, unpack = 0, len(data), _FRAME.unpack_from
        while size - at >= 9:
            word, flags, stream = unpack(data, at)
            end = at + 9 + (word >> 8)
            if end > size:
                break
            self._frame(word & 255, flags, stream, data[at + 9 : end], now)
            at = end
        self._rest = data[at:]
        self._fill()
        self._run.settle()

    def adopt(self) -> None:
        """Keep one call more in flight."""
        self._wanted += 1
        if self._transport is not None:
            self._fill()

    def close(self) -> None:
        """Leave, with the connections that took over."""
        if self._transport is not None:
            self._transport.close()
        if self._successor is not None:
            self._successor.close()

    def _fill(self) -> None:
        """Start the calls that are wanted and that the server's window allows; write all at once."""
        run, calls, out = self._run, self._calls, self._out
        while len(calls) < self._wanted and not run.tally.over(now := time.monotonic_ns()):
            index = run.tally.next_index()
            body = run.bodies[index]
            if len(body) > self._send_window:
                break
            self._send_window -= len(body)
            stream = self._next_stream
            self._next_stream = stream + 2
            calls[stream] = _Call(index, now)
            run.in_flight += 1
            block = self._block
            self._block = run.block
            out += (
                _FRAME.pack(len(block) << 8 | HEADERS, END_HEADERS, stream),
                block,
                _FRAME.pack(len(body) << 8 | DATA, END_STREAM, stream),
                body,
            )
        if out and self._transport is not None:
            self._transport.write(b"".join(out))
            out.clear()

    def _frame(self, kind: int, flags: int, stream: int, body: bytes, now_ns: int) -> None:
        if kind == DATA:
            self._calls[stream].answer += body
            self._received += len(body)
            if self._received > _WINDOW_BYTES_MAX // 2:
                self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
                self._received = 0
        elif kind == HEADERS:
            if not flags & END_HEADERS:
                raise ValueError("a header block in several frames: not supported")
            if flags & END_STREAM:
                self._trailers(stream, body, now_ns)
        else:
            self._control(kind, flags, stream, body)

    def _trailers(self, stream: int, block: bytes, now_ns: int) -> None:
        run = self._run
        call = self._calls.pop(stream)
        if block in run.good_trailers:
            run.tally.answered(call.index, call.started_ns, now_ns, call.answer[5:])
        elif (status := grpc_status(block)) == 0:
            # Blocks repeat, so each is decoded once; the bound is for a server that puts a clock into them.
            if len(run.good_trailers) < 64:
                run.good_trailers.add(block)
            run.tally.answered(call.index, call.started_ns, now_ns, call.answer[5:])
        else:
            run.tally.failed(f"grpc-status {status}")
        self._left()

    def _left(self) -> None:
        if self._successor is not None:
            self._wanted -= 1
            self._successor.adopt()
        self._run.in_flight -= 1

    def _control(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == WINDOW_UPDATE:
            if stream == 0:
                self._send_window += int.from_bytes(body, "big")
        elif kind == PING:
            if not flags & ACK:
                self._out.append(frame(PING, ACK, 0, body))
        elif kind == SETTINGS:
            if not flags & ACK:
                self._out.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == RST_STREAM:
            if self._calls.pop(stream, None) is not None:
                self._run.tally.failed(f"stream reset, code {int.from_bytes(body, 'big')}")
                self._left()
        elif kind == GOAWAY:
            self._leave(int.from_bytes(body[:4], "big"))
        else:
            raise ValueError(f"unexpected HTTP/2 frame of type {kind}")

    def _leave(self, last_stream: int) -> None:
        """The server wants this connection to end: calls it did not take start again on another one."""
        if self._successor is None:
            self._successor = self._run.connect(self._wanted - len(self._calls))
            self._wanted = len(self._calls)
        for stream in [stream for stream in self._calls if stream > last_stream]:
            del self._calls[stream]
            self._left()


async def drive(target: str, method: str, connections: int, in_flight: int, tally: Tally) -> None:
    """Keep `in_flight` calls going on each connection until the window ends and the last is answered."""
    run = _Run(target, method, tally)
    opened = [run.connect(in_flight) for _ in range(connections)]
    try:
        await asyncio.wait_for(run.finished, tally.remaining_seconds() + _DRAIN_SECONDS)
    except TimeoutError:
        tally.failed(f"{run.in_flight} calls not answered {_DRAIN_SECONDS:.0f} s after the end")
    finally:
        for connection in opened:
            connection.close()
