"""Counts, times and checks the answers that one client process gets."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.payload import Payload

# DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED, as the load generator tells them.
_REFUSALS = frozenset({"grpc-status 4", "grpc-status 8"})


class Tally:
    """One measurement of one process.

    Calls that end inside the window are counted as `completed` and timed; all are counted in `total`. A call
    in flight at the end is awaited, so the server's own count must agree with `total`.

    Args:
        payload: What is sent, and what must come back.
        begin_ns: Begin of the window, on CLOCK_MONOTONIC.
        end_ns: Its end; no call starts after it.
        verify_every: Of so many answers one is compared with the expected one.
        may_refuse: Calls that the server refuses for lack of time or room are no errors.
    """

    def __init__(
        self, payload: Payload, begin_ns: int, end_ns: int, verify_every: int, *, may_refuse: bool = False
    ) -> None:
        self.payload = payload
        self.completed = 0
        self.total = 0
        self.verified = 0
        self.wrong = 0
        self.refused = 0
        self.errors: Counter[str] = Counter()
        self.indexes = array("q")
        self.latencies_ns = array("q")
        self.ends_ns = array("q")
        self.late_ns = 0
        self._begin_ns = begin_ns
        self._end_ns = end_ns
        self._verify_every = verify_every
        self._may_refuse = may_refuse
        self._bodies = len(payload.bodies)
        self._next = 0

    def next_index(self) -> int:
        """Which request to send now."""
        index = self._next
        self._next = index + 1 if index + 1 < self._bodies else 0
        return index

    def over(self, now_ns: int) -> bool:
        """No further call may start."""
        return now_ns >= self._end_ns

    def remaining_seconds(self) -> float:
        """Until the window ends."""
        return (self._end_ns - time.monotonic_ns()) / 1e9

    def answered(self, index: int, started_ns: int, ended_ns: int, answer: bytes) -> None:
        """A call came back with status OK."""
        self.total += 1
        if self._begin_ns <= ended_ns < self._end_ns:
            self.completed += 1
            self.indexes.append(index)
            self.latencies_ns.append(ended_ns - started_ns)
            self.ends_ns.append(ended_ns)
        if not self.payload.plausible(index, answer):
            self.wrong += 1
        elif self.total % self._verify_every == 0:
            self.verified += 1
            if not self.payload.right(index, answer):
                self.wrong += 1

    def failed(self, reason: str) -> None:
        """A call did not come back with status OK."""
        if self._may_refuse and reason in _REFUSALS:
            self.refused += 1
        else:
            self.errors[reason] += 1

    def sent(self, late_ns: int) -> None:
        """A call of an open loop left, so much after its time."""
        self.late_ns = max(self.late_ns, late_ns)
