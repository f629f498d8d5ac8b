"""Answers that their clients have not read: a bound on them for each connection.

An answer is copied out of its worker's memory at once, and from then on its bytes are the front end's, until the
client has read so much that gRPC could send them. A client that does not read, and goes on asking, would fill the
front end's memory. So what a connection has unread, together with what its requests in hand are expected to be
answered with, is bounded; beyond that its next requests wait, with whatever deadline they have. One request at a time
always goes on, however large its answer is.

How large an answer will be is not known before: it is expected to be as large as the largest of the last ones. While
these are small, nothing is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from typing_extensions import override

from predictd.server.access.methods import INFER, RULES

# Smaller answers are not worth counting: what gRPC itself keeps for a call is not much less.
COUNTED_BYTES = 32 * 1024
# An answer counts for what is expected until so many smaller ones have come, about.
FORGET_SHARE = 64


@dataclass(slots=True)
class _Connection:
    """What a connection has unread.

    Attributes:
        held_bytes: Answers that are unread, and those that are expected.
        turns: Requests that these are of.
        waiting: Requests that wait, in order.
    """

    held_bytes: int = 0
    turns: int = 0
    waiting: deque[tuple[asyncio.Future[None], Turn]] = field(default_factory=deque)


class Turn:
    """One request's part in what its connection has unread."""

    __slots__ = ("_connection", "_unread", "peer", "size_bytes")

    def __init__(self, unread: Unread, connection: _Connection, peer: str, size_bytes: int) -> None:
        self._unread = unread
        self._connection = connection
        self.peer = peer
        self.size_bytes = size_bytes

    def answered(self, size_bytes: int) -> None:
        """The answer is there, and how large it is."""
        self._connection.held_bytes += size_bytes - self.size_bytes
        self.size_bytes = size_bytes
        self._unread.expect(size_bytes)

    def done(self, *_: object) -> None:
        """The client has read the answer, or there is none."""
        self._connection.held_bytes -= self.size_bytes
        self._connection.turns -= 1
        self._unread.let_in(self.peer, self._connection)


class Unread:
    """The connections of a front end that have something unread. Runs on the event loop alone.

    Args:
        limit_bytes: What a connection may have unread.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._connections: dict[str, _Connection] = {}
        self._expected_bytes = 0

    @property
    def total_bytes(self) -> int:
        """Of all connections, those that are expected included."""
        return sum(connection.held_bytes for connection in self._connections.values())

    def expect(self, size_bytes: int) -> None:
        """An answer was so large: the next ones may be, too."""
        forgotten = self._expected_bytes - self._expected_bytes // FORGET_SHARE
        self._expected_bytes = max(size_bytes, forgotten)

    async def turn(self, peer: str) -> Turn:
        """Wait until a request of a connection may be taken in hand. Its turn has to be `done` whatever comes."""
        connection = self._connection(peer)
        turn = Turn(self, connection, peer, self._expected_bytes)
        if not connection.waiting and self._has_room(connection, turn):
            _admit(connection, turn)
            return turn
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (admitted, turn)
        connection.waiting.append(place)
        try:
            await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled():
                turn.done()
            elif place in connection.waiting:
                connection.waiting.remove(place)
                self.let_in(peer, connection)
            raise
        return turn

    @property
    def counts(self) -> bool:
        """Whether answers are large enough, or were, to be counted."""
        return bool(self._connections) or self._expected_bytes >= COUNTED_BYTES

    def already_answered(self, peer: str, size_bytes: int) -> Turn:
        """The turn of a request that was taken in hand while nothing was counted."""
        connection = self._connection(peer)
        turn = Turn(self, connection, peer, 0)
        _admit(connection, turn)
        turn.answered(size_bytes)
        return turn

    def let_in(self, peer: str, connection: _Connection) -> None:
        """Something was read, or is not waited for any more: take the next requests in hand."""
        while connection.waiting and self._has_room(connection, connection.waiting[0][1]):
            admitted, turn = connection.waiting.popleft()
            # One that has given up is about to find that out.
            if not admitted.done():
                _admit(connection, turn)
                admitted.set_result(None)
        if not connection.turns and not connection.waiting:
            self._connections.pop(peer, None)

    def _connection(self, peer: str) -> _Connection:
        connection = self._connections.get(peer)
        if connection is None:
            connection = self._connections[peer] = _Connection()
        return connection

    def _has_room(self, connection: _Connection, turn: Turn) -> bool:
        return not connection.turns or connection.held_bytes + turn.size_bytes <= self._limit_bytes


def _admit(connection: _Connection, turn: Turn) -> None:
    connection.held_bytes += turn.size_bytes
    connection.turns += 1


class Bounded(grpc.GenericRpcHandler):
    """A service whose inference methods of one answer count what is unread. Streams count for themselves.

    Args:
        service: That is called.
        unread: Counts.
    """

    def __init__(self, service: grpc.GenericRpcHandler, unread: Unread) -> None:
        self._service = service
        self._unread = unread

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """A handler of a method. The registry asks once and keeps it."""
        handler: Any = self._service.service(handler_call_details)
        infers = RULES.get(handler_call_details.method) is INFER
        if handler is not None and infers and not handler.response_streaming:
            kind = "stream_unary" if handler.request_streaming else "unary_unary"
            handler = handler._replace(**{kind: _counting(getattr(handler, kind), self._unread)})
        return handler


def _counting(
    handle: Callable[[Any, Any], Awaitable[bytes]], unread: Unread
) -> Callable[[Any, Any], Awaitable[bytes]]:
    async def counted(request: Any, context: Any) -> bytes:
        if not unread.counts:
            handling = handle(request, context)
            # gRPC keeps the exception that ends a call in a ring with its frames: not with the request.
            del request
            answer = await handling
            if len(answer) >= COUNTED_BYTES:
                context.add_done_callback(unread.already_answered(context.peer(), len(answer)).done)
            return answer
        try:
            turn = await unread.turn(context.peer())
        except BaseException:
            del request
            raise
        # Called when the call has ended: once gRPC could send the answer, or its client has gone.
        context.add_done_callback(turn.done)
        handling = handle(request, context)
        del request
        answer = await handling
        turn.answered(len(answer))
        return answer

    return counted
