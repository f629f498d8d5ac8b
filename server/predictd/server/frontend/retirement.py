"""When is a lane that was taken out of the routes finished with? Counts its requests from their arrival."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Retirements:
    """Requests of each lane from the moment they are routed until their tickets are accounted for."""

    def __init__(self) -> None:
        self._active: Counter[int] = Counter()
        self._waiting: dict[int, list[Callable[[], None]]] = {}

    def begin(self, lane: int) -> None:
        """A request was routed to the lane."""
        self._active[lane] += 1

    def end(self, lane: int) -> None:
        """A request is over, retries included."""
        self._active[lane] -= 1
        if self._active[lane] <= 0:
            del self._active[lane]
            for callback in self._waiting.pop(lane, ()):
                callback()

    def when_idle(self, lane: int, callback: Callable[[], None]) -> None:
        """Call back once the lane has no request, at once if that is so now."""
        if lane in self._active:
            self._waiting.setdefault(lane, []).append(callback)
        else:
            callback()
