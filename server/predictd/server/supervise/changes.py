"""Waiting for what a change may bring about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Wakes those who wait for a condition whenever something it may depend on has changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def note(self) -> None:
        """Something changed."""
        self._changed.set()

    async def wait(self, condition: Callable[[], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until a condition holds, looking after each change. False when the time-out came first.

        Several may wait at once: the event wakes all of them before any can clear it, and nothing changes between a
        look and the wait.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True
