"""The event loop of a simulated process: real futures and tasks, simulated time, one turn whenever it is its turn."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import select
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from tests.simulation.clock import Clock


class Loop:
    """As much of an event loop as supervisor and front ends use; the rest would only be there to be unused.

    Args:
        clock: Of the world.
        on_error: Hears of what no callback of ours may do: raise.
    """

    def __init__(self, clock: Clock, on_error: Callable[[str, BaseException | None], None]) -> None:
        self._clock = clock
        self._as_loop: Any = self
        self._on_error = on_error
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, asyncio.Handle] = {}
        self._poll = select.poll()

    # What the scheduler asks ----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a turn would do something."""
        return bool(self._ready or self._due() or (self._readers and self._poll.poll(0)))

    @property
    def wakes_ns(self) -> int | None:
        """When the next timer is due."""
        self._forget_cancelled()
        return round(self._timers[0][0] * 1e9) + 1 if self._timers else None

    def turn(self) -> None:
        """Go round once."""
        if self._readers:
            at = [fd for fd, _ in self._poll.poll(0)]
            self._ready.extend(self._readers[fd] for fd in at)
        while self._due():
            self._ready.append(heapq.heappop(self._timers)[2])
        with Running(self):
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()

    def _due(self) -> bool:
        self._forget_cancelled()
        return bool(self._timers) and self._timers[0][0] <= self._clock.now_ns / 1e9

    def _forget_cancelled(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)

    def close(self) -> None:
        """Its process is gone: whatever waits never wakes."""
        self._ready.clear()
        self._timers.clear()
        self._readers.clear()
        self._poll = select.poll()

    # What the product asks ------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._clock.now_ns / 1e9

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are forgotten when they come up."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._as_loop, name=name, context=context)

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        if fd >= 0:  # A mailbox is nothing to poll.
            self._readers[fd] = asyncio.Handle(callback, args, self._as_loop)
            self._poll.register(fd, select.POLLIN)

    def remove_reader(self, fd: int) -> bool:
        self._poll.unregister(fd)
        return self._readers.pop(fd, None) is not None

    def run_in_executor(self, executor: None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        del executor
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # What is said of a future or a task that is collected says nothing of a world that has ended.
        if "handle" in context:
            self._on_error(context["message"], context.get("exception"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)


class Running:
    """For so long, code runs as if on a loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        asyncio._set_running_loop(self._loop._as_loop)

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)
