"""A call of the load generator, and what a connection tells its owner of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from predictd.server.bench.http2 import Connection


class Call:
    """A request under way: which of the prepared ones, and when it was to be sent."""

    __slots__ = ("index", "intended_ns")

    def __init__(self, index: int, intended_ns: int) -> None:
        self.index = index
        self.intended_ns = intended_ns


class Events(Protocol):
    """What a connection tells its owner."""

    def connected(self, connection: Connection) -> None:
        """Calls can start."""

    def answered(self, call: Call, message: bytes, now_ns: int) -> None:
        """Status OK."""

    def failed(self, call: Call, reason: str, now_ns: int) -> None:
        """Any other end of a call."""

    def turn(self, connection: Connection, now_ns: int) -> None:
        """All was told that came at once: a chance to start calls."""

    def leaving(self, connection: Connection, untouched: Sequence[Call]) -> None:
        """The server takes no more calls here, and did not look at these."""

    def lost(self, connection: Connection, reason: str, unanswered: int) -> None:
        """The connection is gone."""
