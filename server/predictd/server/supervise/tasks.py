"""Tasks of the supervisor. One that fails ends the daemon: what it left undone nobody else will do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Tasks:
    """Runs tasks until they are stopped.

    Args:
        give_up: Told why the daemon cannot go on.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task until `stop`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the supervisor failed", exc_info=error)
            self._give_up(f"{error!r} in the supervisor. This is a bug")

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's exception handler: a callback of ours that fails leaves a state that nobody knows."""
        loop.default_exception_handler(context)
        if "handle" in context:
            self._give_up(f"{context.get('exception')!r} in the supervisor. This is a bug")

    async def stop(self) -> None:
        """Cancel those that run."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
