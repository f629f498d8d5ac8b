"""Closed and open loops of calls over several connections.

A latency counts from when a request was to be sent: in a closed loop when the answer before it came, in an open loop
when its schedule says so. If this process is late, or held back by the server's flow control, requests wait no less
than they would have in front of a server, so the wait is part of what is measured and nothing is omitted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from typing_extensions import override

from predictd.server.bench.access import PLAIN, UNIX, Access, speaks_http2
from predictd.server.bench.dialects import Dialect
from predictd.server.bench.events import Call
from predictd.server.bench.frames import prefixed
from predictd.server.bench.hpack import RequestHeaders
from predictd.server.bench.http2 import Connection
from predictd.server.bench.timer import Timer


class Recorder(Protocol):
    """Who counts."""

    def next_index(self) -> int:
        """Which of the prepared requests is next."""

    def over(self, now_ns: int) -> bool:
        """No further call may start."""

    def answered(self, index: int, started_ns: int, ended_ns: int, answer: bytes) -> None:
        """A call came back with status OK."""

    def failed(self, reason: str) -> None:
        """A call did not come back with status OK."""


def _headers(target: str, dialect: Dialect, timeout: str, access: Access) -> RequestHeaders:
    # As gRPC's own client has it: the name that is to be in the certificate, else the address.
    named = access.server_name or target.startswith(UNIX)
    return RequestHeaders(
        dialect.path,
        access.host(target) if named else target,
        timeout,
        "https" if access.tls else "http",
        access.metadata,
    )


class _Loop:
    """Connections, and the calls on them.

    Args:
        target: HOST:PORT or unix:PATH.
        dialect: The API.
        bodies: The requests, serialized.
        recorder: Told of every answer.
        timeout: Deadline of calls, as gRPC writes it.
        access: How the server is reached.
    """

    def __init__(
        self,
        target: str,
        dialect: Dialect,
        bodies: Sequence[bytes],
        recorder: Recorder,
        timeout: str,
        access: Access,
    ) -> None:
        self._target = target
        self._dialect = dialect
        self._tls = access.context() if access.tls else None
        self._host = access.host(target)
        self._headers = _headers(target, dialect, timeout, access)
        self._messages = list(bodies) if dialect.streams else [prefixed(body) for body in bodies]
        self._recorder = recorder
        self._links: list[Connection] = []
        # Those that the server wants to end, until their last answer.
        self._old: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def in_flight(self) -> int:
        """Calls that are not answered."""
        return self._in_flight

    @property
    def failure(self) -> str:
        """Why the load ended by itself; empty if it did not."""
        error = self.finished.exception() if self.finished.done() else None
        return "" if error is None else str(error)

    def close(self) -> None:
        """Leave the server."""
        for task in self._opening:
            task.cancel()
        for link in (*self._links, *self._old):
            link.close()

    def settle(self) -> None:
        """Finish if no call may start and none is in flight."""
        if self._in_flight == 0 and not self.finished.done() and self._recorder.over(time.monotonic_ns()):
            self.finished.set_result(None)

    def _connect(self) -> Connection:
        connection = Connection(self, self._dialect, self._headers)
        task = asyncio.get_running_loop().create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opened)
        return connection

    async def _open(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        name = self._host if self._tls else None
        transport: asyncio.BaseTransport
        if self._target.startswith(UNIX):
            path = self._target.removeprefix(UNIX)
            transport, _ = await loop.create_unix_connection(
                lambda: connection, path, ssl=self._tls, server_hostname=name
            )
        else:
            host, _, port = self._target.rpartition(":")
            transport, _ = await loop.create_connection(
                lambda: connection,
                host.strip("[]") or "127.0.0.1",
                int(port),
                ssl=self._tls,
                server_hostname=name,
            )
        if not speaks_http2(transport.get_extra_info("ssl_object")):
            raise ConnectionError("it does not offer HTTP/2 (ALPN h2)")

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(f"cannot connect to {self._target}: {error}")

    def _break(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(ConnectionError(reason))

    def _start(self, link: Connection, intended_ns: int) -> None:
        index = self._recorder.next_index()
        self._in_flight += 1
        link.start(Call(index, intended_ns), self._messages[index])

    # Events ---------------------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        self.turn(connection, time.monotonic_ns())

    def answered(self, call: Call, message: bytes, now_ns: int) -> None:
        self._in_flight -= 1
        self._recorder.answered(call.index, call.intended_ns, now_ns, message)

    def failed(self, _call: Call, reason: str, _now_ns: int) -> None:
        self._in_flight -= 1
        self._recorder.failed(reason)

    def turn(self, connection: Connection, _now_ns: int) -> None:
        if connection in self._old and not connection.in_flight:
            self._old.discard(connection)
            connection.close()
        self.settle()

    def leaving(self, connection: Connection, untouched: Sequence[Call]) -> None:
        """Its calls go on where they are, those that were not looked at elsewhere, and no new ones come."""
        if connection not in self._old:
            self._old.add(connection)
            self._links[self._links.index(connection)] = self._replaced(connection)
        successor = self._successor(connection)
        for call in untouched:
            successor.start(call, self._messages[call.index])
        successor.flush()

    def lost(self, connection: Connection, reason: str, unanswered: int) -> None:
        if connection in self._old and not unanswered:
            self._old.discard(connection)
            return
        self._break(f"connection lost with {unanswered} calls in flight: {reason}")

    def _replaced(self, _connection: Connection) -> Connection:
        return self._connect()

    def _successor(self, _connection: Connection) -> Connection:
        return self._links[-1]


class ClosedLoop(_Loop):
    """Callers, each of which sends its next request when the last is answered.

    Args:
        target: HOST:PORT or unix:PATH.
        dialect: The API.
        bodies: The requests, serialized.
        recorder: Told of every answer.
        shares: Callers on each connection.
        timeout: Deadline of calls, as gRPC writes it.
        access: How the server is reached.
    """

    def __init__(
        self,
        target: str,
        dialect: Dialect,
        bodies: Sequence[bytes],
        recorder: Recorder,
        shares: Sequence[int],
        timeout: str = "",
        access: Access = PLAIN,
    ) -> None:
        super().__init__(target, dialect, bodies, recorder, timeout, access)
        self._shares: dict[Connection, int] = {}
        self._heirs: dict[Connection, Connection] = {}
        for share in shares:
            link = self._connect()
            self._links.append(link)
            self._shares[link] = share

    @override
    def turn(self, connection: Connection, now_ns: int) -> None:
        free = self._shares.get(connection, 0) - connection.in_flight
        while free > 0 and not self._recorder.over(now_ns):
            self._start(connection, now_ns)
            free -= 1
        super().turn(connection, now_ns)

    @override
    def answered(self, call: Call, message: bytes, now_ns: int) -> None:
        super().answered(call, message, now_ns)
        for old in self._old:
            self._move(old)

    def _move(self, old: Connection) -> None:
        """Callers whose last call on an old connection is answered go on with the next one."""
        free = self._shares[old] - old.in_flight
        if free > 0:
            heir = self._heirs[old]
            self._shares[old] -= free
            self._shares[heir] += free
            asyncio.get_running_loop().call_soon(self._go_on, heir)

    def _go_on(self, link: Connection) -> None:
        self.turn(link, time.monotonic_ns())
        link.flush()

    @override
    def _replaced(self, connection: Connection) -> Connection:
        heir = self._connect()
        self._heirs[connection] = heir
        self._shares[heir] = 0
        return heir

    @override
    def _successor(self, connection: Connection) -> Connection:
        return self._heirs[connection]

    @override
    def leaving(self, connection: Connection, untouched: Sequence[Call]) -> None:
        super().leaving(connection, untouched)
        self._move(connection)


class OpenLoop(_Loop):
    """Requests at the times of a schedule, whatever became of those before.

    Args:
        target: HOST:PORT or unix:PATH.
        dialect: The API.
        bodies: The requests, serialized.
        recorder: Told of every answer.
        connections: Used in turns.
        arrivals: When to send, on CLOCK_MONOTONIC in nanoseconds, ascending, without end.
        in_flight_max: Further requests wait here. Their latency counts from the schedule all the same.
        timeout: Deadline of calls, as gRPC writes it.
        access: How the server is reached.
    """

    def __init__(
        self,
        target: str,
        dialect: Dialect,
        bodies: Sequence[bytes],
        recorder: OpenRecorder,
        connections: int,
        arrivals: Iterator[int],
        in_flight_max: int,
        timeout: str = "",
        access: Access = PLAIN,
    ) -> None:
        super().__init__(target, dialect, bodies, recorder, timeout, access)
        self._late = recorder
        self._arrivals = arrivals
        self._due_ns = next(arrivals)
        self._in_flight_max = in_flight_max
        self._turns = 0
        self._held_back = False
        self._timer = Timer(self._send)
        self._links = [self._connect() for _ in range(connections)]
        self._timer.wake_at(self._due_ns)

    def _send(self) -> None:
        """Send all that is due."""
        now_ns = time.monotonic_ns()
        touched: dict[Connection, None] = {}
        while self._due_ns <= now_ns and not self._recorder.over(now_ns):
            if self._in_flight >= self._in_flight_max:
                self._held_back = True
                break
            link = self._links[self._turns % len(self._links)]
            self._turns += 1
            if not self._held_back:
                # Lateness of our own making: not that of a server that lets requests pile up.
                self._late.sent(now_ns - self._due_ns)
            self._start(link, self._due_ns)
            touched[link] = None
            self._due_ns = next(self._arrivals)
        else:
            self._held_back = False
        for link in touched:
            link.flush()
        if not self._held_back and not self._recorder.over(now_ns):
            self._timer.wake_at(self._due_ns)
        self.settle()

    @override
    def turn(self, connection: Connection, now_ns: int) -> None:
        if self._held_back:
            self._send()
        super().turn(connection, now_ns)

    @override
    def close(self) -> None:
        self._timer.close()
        super().close()


class OpenRecorder(Recorder, Protocol):
    """Who counts what an open loop does."""

    def sent(self, late_ns: int) -> None:
        """A request left, so much after its time."""
