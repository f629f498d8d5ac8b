"""The last warnings and errors of all processes, for whoever looks only after something went wrong."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

EVENTS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """A log line of level warning or above.

    Attributes:
        unix_seconds: When.
        level: "warning", "error" or "critical".
        role: Whose, such as "supervisor" or "worker resnet 0".
        pid: Of that process.
        model: The model that it is about; empty if it is about none.
        text: One line without control characters, cut to TEXT_CHARACTERS_MAX.
        left_out: How many of the same event were left out just before it.
    """

    unix_seconds: float
    level: str
    role: str
    pid: int
    model: str
    text: str
    left_out: int = 0


class RecentEvents:
    """The newest events, at most so many.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int = EVENTS_MAX) -> None:
        self._events: deque[RecentEvent] = deque(maxlen=limit)

    def add(self, event: RecentEvent) -> None:
        """Keep an event; the oldest one goes when there are too many."""
        self._events.append(event)

    def newest_first(self) -> tuple[RecentEvent, ...]:
        """All that are kept."""
        return tuple(reversed(self._events))
