"""Counts what comes back, interval by interval."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from predictd.server.bench.histogram import Histogram
from predictd.server.bench.messages import Interval, Payload


@dataclass(slots=True)
class _Counts:
    latencies: list[Histogram]
    late: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)


class IntervalRecorder:
    """What a loop tells; see `loops.OpenRecorder`."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._bodies = len(payload.bodies)
        self._next = 0
        self._over = False
        self._now = self._empty()

    def _empty(self) -> _Counts:
        return _Counts([Histogram() for _ in range(self._payload.model_count)])

    def next_index(self) -> int:
        """Which of the requests is next."""
        index = self._next
        self._next = index + 1 if index + 1 < self._bodies else 0
        return index

    def over(self, _now_ns: int) -> bool:
        """No further call may start."""
        return self._over

    def stop(self) -> None:
        """From now on it is over."""
        self._over = True

    def answered(self, index: int, started_ns: int, ended_ns: int, _answer: bytes) -> None:
        """A call came back with status OK."""
        self._now.latencies[self._payload.models[index]].record(ended_ns - started_ns)

    def failed(self, reason: str) -> None:
        """A call did not."""
        self._now.errors[reason] += 1

    def sent(self, late_ns: int) -> None:
        """A request left, so much after its time."""
        self._now.late.record(late_ns)

    def take(
        self,
        number: int,
        in_flight: int,
        lag_ns: int,
        cpu_seconds: float,
        waited_seconds: float,
        failure: str = "",
    ) -> Interval:
        """End an interval, and begin the next."""
        counts, self._now = self._now, self._empty()
        return Interval(
            number=number,
            latencies=[each.counts for each in counts.latencies],
            late=counts.late.counts,
            errors=dict(counts.errors),
            in_flight=in_flight,
            lag_ns=lag_ns,
            cpu_seconds=cpu_seconds,
            waited_seconds=waited_seconds,
            failure=failure,
        )
