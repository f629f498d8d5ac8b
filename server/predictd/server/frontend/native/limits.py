"""What the supervisor said of a front end, as far as the hot path asks for it."""

from __future__ import annotations

from typing import Protocol


class Limits(Protocol):
    """What the supervisor said of this front end, as far as it is asked for here. See `FrontendInit`."""

    @property
    def frontend(self) -> int:
        """Its id."""

    @property
    def in_flight_limit(self) -> int:
        """Requests that it may have in flight."""

    @property
    def arena_limit_bytes(self) -> int:
        """Of the requests to one pool."""

    @property
    def arena_keep_ns(self) -> int:
        """How long memory is kept that nobody needs."""

    @property
    def max_message_bytes(self) -> int:
        """Of a request, and of an answer."""
