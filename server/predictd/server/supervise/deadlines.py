"""How long children may take over something: one deadline a child at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from predictd.server.supervise.child import Child


class Deadlines:
    """Calls back once a child has taken too long.

    Args:
        seconds: How long is too long.
        passed: Called with the child.
    """

    def __init__(self, seconds: float, passed: Callable[[Child], None]) -> None:
        self._seconds = seconds
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def start(self, child: Child) -> None:
        """Count from now."""
        self.cancel(child)
        self._timers[child.id] = self._loop.call_later(self._seconds, self._passed, child)

    def cancel(self, child: Child) -> None:
        """It was in time, or is gone."""
        timer = self._timers.pop(child.id, None)
        if timer is not None:
            timer.cancel()
