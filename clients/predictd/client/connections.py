"""Which connection a call goes through. No I/O.

A connection sits on one of the daemon's front ends, so one client may have several to a target. A call takes the one
with the fewest calls in flight, and a new one is opened only where all are busy: who calls in sequence has one. One
that has just failed is left alone for a moment, if there is another.

They belong to a process, to an event loop where there is one, and to the certificates that they were opened with. What
a fork, the end of a loop or new certificates leave behind is forgotten; calls in flight on it come to their end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import grpc

from predictd.client.errors import PredictdError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import TracebackType

ChannelT = TypeVar("ChannelT")

SHUN_SECONDS = 1.0


class Connection(Generic[ChannelT]):
    """A channel and what is in flight on it. As a context: one call.

    Attributes:
        channel: The gRPC channel.
        methods: Its methods by path, as they are made.
        busy: Calls in flight.
        shunned_until: It failed; others are better until then, by the monotonic clock.
    """

    __slots__ = ("_lock", "busy", "channel", "methods", "shunned_until")

    def __init__(self, channel: ChannelT, lock: threading.Lock) -> None:
        self.channel = channel
        self.methods: dict[str, Any] = {}
        self.busy = 0
        self.shunned_until = 0.0
        self._lock = lock

    def done(self, error: BaseException | None) -> None:
        """A call ended."""
        with self._lock:
            self.busy -= 1
            if _is_unavailable(error):
                self.shunned_until = time.monotonic() + SHUN_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done(error)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a connection is.

    Attributes:
        process: Its number.
        loop: The event loop that waits for it; None of the blocking client.
        generation: Which certificates it was opened with.
    """

    process: int
    loop: AbstractEventLoop | None
    generation: int


class Connections(Generic[ChannelT]):
    """The connections of a client.

    Args:
        open_channel: Opens one.
        limit: How many each owner may have.
    """

    def __init__(self, open_channel: Callable[[], ChannelT], limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a client has at least 1 connection, not {limit}")
        self._open = open_channel
        self._limit = limit
        self._lock = threading.Lock()
        self._process: int | None = None
        self._all: dict[Owner, list[Connection[ChannelT]]] = {}
        self._closed = False

    def take(self, owner: Owner) -> Connection[ChannelT]:
        """The connection for a call, which ends with its `done`.

        Raises:
            ValueError: The client is closed.
        """
        if owner.process != self._process:
            # The lock of another process may be held for ever.
            self._process, self._lock, self._all = owner.process, threading.Lock(), {}
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            chosen = self._choose(self._of(owner), time.monotonic())
            chosen.busy += 1
        return chosen

    def close(self, loop: AbstractEventLoop | None) -> list[ChannelT]:
        """Take no more calls; the channels of this loop, to close. Those of other loops are forgotten."""
        self._closed = True
        mine = [theirs for owner, theirs in self._all.items() if owner.loop is loop]
        self._all = {}
        return [connection.channel for theirs in mine for connection in theirs]

    def _of(self, owner: Owner) -> list[Connection[ChannelT]]:
        found = self._all.get(owner)
        if found is None:
            others = self._all.items()
            self._all = {other: theirs for other, theirs in others if not _is_past(other, owner)}
            found = self._all[owner] = []
        return found

    def _choose(self, mine: list[Connection[ChannelT]], now: float) -> Connection[ChannelT]:
        fit = [connection for connection in mine if connection.shunned_until <= now]
        best = min(fit, key=lambda connection: connection.busy, default=None)
        if best is not None and not best.busy:
            return best
        if len(mine) < self._limit:
            opened = Connection(self._open(), self._lock)
            mine.append(opened)
            return opened
        return best or min(mine, key=lambda connection: connection.shunned_until)


def _is_past(owner: Owner, new: Owner) -> bool:
    """Whether nothing will be asked on behalf of an owner any more, now that there is a new one."""
    return owner.loop is new.loop or (owner.loop is not None and owner.loop.is_closed())


def _is_unavailable(error: BaseException | None) -> bool:
    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    return isinstance(error, grpc.RpcError | PredictdError) and code is grpc.StatusCode.UNAVAILABLE
