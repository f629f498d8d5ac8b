"""How long a request that came now would wait in its queue, learned from those that were answered lately.

Each answer tells how long its request waited, and how many were before it when it came. The one divided by the other is
what one request in the queue costs those behind it: engine, batches, number of workers, other front ends and other
models together. The median of the last of these, times the number of requests that are there now, is the expected wait.

Nothing is expected before enough answers were seen; what was seen too long ago counts no more; and who finds nobody
before him does not wait. So an expectation that is too long cures itself: when the queue has emptied, requests are
admitted, and their answers are seen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SAMPLES = 33
ENOUGH_SAMPLES = 9
# Medians are not taken anew for each answer.
ANSWERS_BETWEEN_LOOKS = 4
KEPT_NS = 3 * 10**9
# An expectation that lasted longer than this many times itself is as old as one that was kept for too long.
WAITS_KEPT = 4
# Waits vary: with so much in hand a request that is admitted is not the one that just misses its deadline.
SLACK = 1.25


@dataclass(slots=True)
class Expectation:
    """What is known of one queue of a lane. Belongs to the front end's event loop."""

    _costs: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _runs: deque[int] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _until_ns: int = 0
    _cost_ns: float = 0.0
    _run_ns: int = 0
    _unseen: int = 0

    def answered(self, ahead: int, queue_ns: int, compute_ns: int, now_ns: int) -> None:
        """Learn from an answer.

        Args:
            ahead: Requests that were before this one when it came.
            queue_ns: How long it waited.
            compute_ns: The run that it took part in.
            now_ns: CLOCK_MONOTONIC.
        """
        if now_ns > self._until_ns:
            self._costs.clear()
            self._runs.clear()
            self._cost_ns = 0.0
        self._costs.append(queue_ns / max(ahead, 1))
        self._runs.append(compute_ns)
        self._until_ns = now_ns + KEPT_NS + WAITS_KEPT * (queue_ns + compute_ns)
        self._unseen += 1

    def wait_ns(self, ahead: int, now_ns: int) -> int:
        """The expected wait behind so many others; 0 while nothing is known."""
        return int(ahead * self._cost_ns) if ahead and self._known(now_ns) else 0

    def excess_ns(self, ahead: int, left_ns: int, now_ns: int) -> int:
        """By how much the wait for an answer is expected to exceed what a deadline leaves; 0 if it does not.

        Args:
            ahead: Requests that are before it.
            left_ns: From now to the deadline.
            now_ns: CLOCK_MONOTONIC.
        """
        wait_ns = self.wait_ns(ahead, now_ns)
        return max(int(wait_ns * SLACK) + self._run_ns - left_ns, 0) if wait_ns else 0

    def _known(self, now_ns: int) -> bool:
        if now_ns > self._until_ns or len(self._costs) < ENOUGH_SAMPLES:
            return False
        if self._unseen >= ANSWERS_BETWEEN_LOOKS or not self._cost_ns:
            self._cost_ns = sorted(self._costs)[len(self._costs) // 2]
            self._run_ns = sorted(self._runs)[len(self._runs) // 2]
            self._unseen = 0
        return True
