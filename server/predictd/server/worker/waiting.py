"""Waiting for tickets: asleep, or awake for a moment where the next one is near.

A thread that sleeps wakes up late and with cold caches. A client that sends one request after the other to a small
model waits longer for that than for the run. So where the plan lets it spin at all, the worker looks again and again
for a moment, as long as that finds something (docs/performance.md has figures).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable

# As long as ONNX Runtime's threads wait for each other.
AWAKE_NS = 200_000
# Asleep it takes longer until the next ticket is seen.
NEAR_NS = 300_000
# After one in vain.
WAITS_BETWEEN_TRIALS = 32


class TicketWait:
    """Waits until one of several descriptors is readable.

    Args:
        fds: Of queues, and what else ends a wait.
        clock_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, fds: Iterable[int], clock_ns: Callable[[], int]) -> None:
        self._poll = select.epoll()
        for fd in fds:
            self._poll.register(fd, select.EPOLLIN)
        self._clock_ns = clock_ns
        self._awake = False
        self._asleep_for = 0

    def until_ready(self, seconds: float | None, *, awake: bool) -> set[int]:
        """What is readable; empty after so many seconds.

        Args:
            seconds: How long to wait at most; None waits until something comes.
            awake: The next ticket may be waited for awake. It has no meaning where there is an end to the wait.
        """
        if seconds is not None or not awake:
            self._awake = False
            return self._readable(seconds)
        began_ns = self._clock_ns()
        if self._awake:
            if ready := self._look(began_ns + AWAKE_NS):
                return ready
            self._asleep_for = WAITS_BETWEEN_TRIALS
        ready = self._readable(None)
        self._asleep_for = max(self._asleep_for - 1, 0)
        self._awake = not self._asleep_for and self._clock_ns() < began_ns + NEAR_NS
        return ready

    def _look(self, until_ns: int) -> set[int]:
        while not (ready := self._readable(0)) and self._clock_ns() < until_ns:
            # To whoever else wants this CPU.
            os.sched_yield()
        return ready

    def _readable(self, seconds: float | None) -> set[int]:
        return {fd for fd, _ in self._poll.poll(seconds)}
