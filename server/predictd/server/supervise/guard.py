"""Ending a supervisor whose own event loop hangs, so that whoever started it can start it again."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import Self

# Generous: the supervisor is not on the path of any request, so that a slow one costs nobody anything.
LIMIT_LOOKS = 60
LOOK_SECONDS = 1.0
EXIT_STATUS = 1


def end_process(looks: int) -> None:
    """Say where every thread stands, and end. Nothing that a hanging loop may hold, such as a logger, is used."""
    line = f"predictd: the supervisor's event loop has hung for {looks} looks, one a second; it ends\n"
    os.write(sys.stderr.fileno(), line.encode())
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(EXIT_STATUS)


class LoopGuard:
    """Watches the running event loop from a thread of its own, from entry to exit.

    The thread counts its own looks and reads no clock: one of a process that was stopped or slept has not looked
    meanwhile, and so holds nothing against the loop.

    Args:
        end: Called in the thread, with the number of looks in a row that found no progress.
        limit: How many of them are too many.
        look_seconds: Between two looks.
    """

    def __init__(
        self,
        end: Callable[[int], None] = end_process,
        limit: int = LIMIT_LOOKS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._end = end
        self._limit = limit
        self._look_seconds = look_seconds
        self._beats = 0
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _beat(self) -> None:
        self._beats += 1
        self._timer = self._loop.call_later(self._look_seconds / 2, self._beat)

    def _watch(self) -> None:
        seen, idle = self._beats, 0
        while not self._over.wait(self._look_seconds):
            idle = idle + 1 if self._beats == seen else 0
            seen = self._beats
            if idle >= self._limit:
                self._end(idle)
                return
