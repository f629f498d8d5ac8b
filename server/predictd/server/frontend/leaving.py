"""Servers in whose place others are: they take no more calls, and answer those that they have."""

from __future__ import annotations

import asyncio


class Leaving:
    """Knows those that are not at their end yet."""

    def __init__(self) -> None:
        self._stopping: set[asyncio.Task[None]] = set()

    def add(self, stopping: asyncio.Task[None]) -> None:
        """Have one more.

        Args:
            stopping: Done when it is at its end.
        """
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def wait(self, seconds: float) -> None:
        """Wait until all are at their end, at most so long."""
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=seconds)
