"""What holds up the event loop of a front end: how late it is, and how long garbage collections take."""

from __future__ import annotations

import asyncio
import gc
import time

from predictd.server.observe.recorder import TimeRecorder

LOOK_SECONDS = 0.1


def watch_loop(loop: asyncio.AbstractEventLoop, lag: TimeRecorder) -> None:
    """Measure from now on how late the loop comes to a timer. Timers have a resolution of a millisecond."""
    due_ns = 0

    def look() -> None:
        nonlocal due_ns
        now_ns = time.monotonic_ns()
        lag.add(max(now_ns - due_ns, 0))
        due_ns = now_ns + round(LOOK_SECONDS * 1e9)
        loop.call_later(LOOK_SECONDS, look)

    due_ns = time.monotonic_ns() + round(LOOK_SECONDS * 1e9)
    loop.call_later(LOOK_SECONDS, look)


def watch_collections(pauses: TimeRecorder) -> None:
    """Measure from now on how long garbage collections take. They begin and end in one thread, one at a time."""
    started_ns = 0

    def collecting(phase: str, _: dict[str, int]) -> None:
        nonlocal started_ns
        if phase == "start":
            started_ns = time.monotonic_ns()
        else:
            pauses.add(time.monotonic_ns() - started_ns)

    gc.callbacks.append(collecting)
