"""How long tickets wait for one another while the front end has no time to spare.

A ticket that is sent alone wakes a worker for itself and its answer wakes the front end. Where the front end is what
all wait for, that time is everybody's: tickets that wait a millisecond for others make larger batches, each of which
costs one wake-up on either side, and the requests behind them are sooner looked at. Where the front end sleeps now and
then, to wait would only be to wait.

So tickets wait as long as the event loop never sleeps, and no longer once it does, be it because of that very wait:
when all callers there are wait for the tickets that are held. Where that is what came of it, it is tried again later
and later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

HELD_NS_MAX = 2_000_000
LOOK_EVERY_NS = 20_000_000
# The loop sleeps for a moment now and then, even with more to do than it can: gRPC's own thread hands it the next call.
AWAKE_SHARE = 0.9
_FIRST_STEP_NS = HELD_NS_MAX // 8
_PAUSE_LOOKS = 8
_PAUSE_LOOKS_MAX = 256
# What has been good for so long was no mistake.
_PROVEN_LOOKS = 16


def awake_clock() -> Callable[[], int]:
    """A clock of the nanoseconds that this thread has run or wanted to run; one that stands where nothing tells."""
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return lambda: 0

    def awake_ns() -> int:
        running_ns, waiting_ns, _ = os.pread(fd, 64, 0).split()
        return int(running_ns) + int(waiting_ns)

    return awake_ns


class Holding:
    """The decision, for all queues of a front end.

    Args:
        awake_ns: How long the thread of the event loop has run or wanted to run so far.

    Attributes:
        held_ns: How long a ticket may wait now; 0 sends each at the end of its turn.
    """

    def __init__(self, awake_ns: Callable[[], int]) -> None:
        self._clock = awake_ns
        self._looked_ns = time.monotonic_ns()
        self._awake_ns = awake_ns()
        self._pause_looks = 0
        self._looks_to_pause = 0
        self._good_looks = 0
        self.held_ns = 0

    def look(self, now_ns: int) -> None:
        """Decide anew, if it is time to. Called with each ticket."""
        passed_ns = now_ns - self._looked_ns
        if passed_ns < LOOK_EVERY_NS:
            return
        awake_ns = self._clock()
        busy = awake_ns - self._awake_ns >= AWAKE_SHARE * passed_ns
        self._looked_ns, self._awake_ns = now_ns, awake_ns
        if self.held_ns:
            self._judge(busy=busy)
        elif self._looks_to_pause:
            self._looks_to_pause -= 1
        elif busy:
            self.held_ns = _FIRST_STEP_NS

    def _judge(self, *, busy: bool) -> None:
        """Tickets were held: to what end?"""
        if busy:
            self.held_ns = min(self.held_ns * 2, HELD_NS_MAX)
            self._good_looks += 1
            if self._good_looks == _PROVEN_LOOKS:
                self._pause_looks = 0
            return
        self._good_looks = 0
        self.held_ns = self.held_ns // 4 if self.held_ns > _FIRST_STEP_NS else 0
        if not self.held_ns:
            self._pause_looks = min(4 * self._pause_looks or _PAUSE_LOOKS, _PAUSE_LOOKS_MAX)
            self._looks_to_pause = self._pause_looks
