"""Which connection a call goes through. No I/O.

A connection sits on one of the daemon's front ends, so one client may have several to a target. A call takes the one
with the fewest calls in flight, and a new one is opened only where all are busy: who calls in sequence has one. One
that has just failed is left alone for a moment, if there is another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import grpc

from predictd.client.errors import PredictdError

if TYPE_CHECKING:
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


class Connections(Generic[ChannelT]):
    """The connections of a client.

    Args:
        open_channel: Opens one.
        limit: How many there may be.
        owner: Whose they are at first; see `take`.
    """

    def __init__(self, open_channel: Callable[[], ChannelT], limit: int, owner: object = None) -> None:
        if limit < 1:
            raise ValueError(f"a client has at least 1 connection, not {limit}")
        self._open = open_channel
        self._limit = limit
        self._owner = owner
        self._lock = threading.Lock()
        self._all: list[Connection[ChannelT]] = []
        self._closed = False

    def take(self, owner: object) -> Connection[ChannelT]:
        """The connection for a call, which ends with its `done`.

        Args:
            owner: The process, and the event loop, that the connections belong to. Those of another one, which a
                fork or a new loop left behind, are of no use and are forgotten.

        Raises:
            ValueError: The client is closed.
        """
        if owner != self._owner:
            # The lock of another process may be held for ever.
            self._owner, self._lock, self._all = owner, threading.Lock(), []
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            chosen = self._choose(time.monotonic())
            chosen.busy += 1
        return chosen

    def close(self) -> list[ChannelT]:
        """Take no more calls; the channels to close."""
        self._closed = True
        channels = [connection.channel for connection in self._all]
        self._all = []
        return channels

    def _choose(self, now: float) -> Connection[ChannelT]:
        fit = [connection for connection in self._all if connection.shunned_until <= now]
        best = min(fit, key=lambda connection: connection.busy, default=None)
        if best is not None and not best.busy:
            return best
        if len(self._all) < self._limit:
            opened = Connection(self._open(), self._lock)
            self._all.append(opened)
            return opened
        return best or min(self._all, key=lambda connection: connection.shunned_until)


def _is_unavailable(error: BaseException | None) -> bool:
    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    return isinstance(error, grpc.RpcError | PredictdError) and code is grpc.StatusCode.UNAVAILABLE
