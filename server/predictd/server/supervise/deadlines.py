"""How long children may take over something: one deadline a child at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from predictd.server.supervise.child import Child


class Deadlines:
    """Calls back when a child has taken too long."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def start(self, child: Child, seconds: float, passed: Callable[[Child], None]) -> None:
        """Call `passed` after so many seconds, instead of what was to be called before."""
        self.cancel(child)
        self._timers[child.id] = self._loop.call_later(seconds, passed, child)

    def cancel(self, child: Child) -> None:
        """It was in time, or is gone."""
        timer = self._timers.pop(child.id, None)
        if timer is not None:
            timer.cancel()
