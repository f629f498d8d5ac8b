"""The last minutes of the daemon in numbers, for a page that is opened after something went wrong.

Theory of operation. Totals are looked at every two seconds. What came between two looks is a tally: of each model
version, how many requests ended, how many of them badly, and how long the good ones took, by bucket. A tally is
made into rates and quantiles at once, which are kept for minutes; whole tallies are kept for seconds, since the
quantiles of a few requests say little, and tallies can be added up where quantiles cannot.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from predictd.server.observe.aggregate import Aggregate, Served
from predictd.server.observe.buckets import DURATION_BOUNDS_NS, DURATION_BUCKETS_SECONDS
from predictd.server.observe.deltas import SUCCESS
from predictd.server.observe.quantiles import quantile

POINTS_MAX: Final = 150
"""Five minutes, at one every two seconds."""
WINDOW_TALLIES: Final = 5
"""What is shown as of now is of the last ten seconds."""
MODELS_PER_POINT_MAX: Final = 32
"""With hundreds of models only the busiest of each moment have a curve of their own."""


class Rates(NamedTuple):
    """What requests were like for a while.

    Attributes:
        requests_per_second: Those that ended with OK.
        errors_per_second: Those that ended otherwise.
        p50_seconds: From arrival to answer, of those that ended with OK; None without any.
        p99_seconds: The same.
        p999_seconds: The same.
    """

    requests_per_second: float
    errors_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None
    p999_seconds: float | None


IDLE: Final = Rates(0.0, 0.0, None, None, None)


@dataclass(frozen=True, slots=True)
class Point:
    """One look.

    Attributes:
        unix_seconds: When.
        total: Of all requests since the look before.
        models: The same by model, for those that had any.
        waiting: Requests that no worker had taken.
        in_flight: Requests that front ends had accepted and not answered.
    """

    unix_seconds: float
    total: Rates
    models: Mapping[str, Rates]
    waiting: int
    in_flight: int


@dataclass(slots=True)
class _Tally:
    """Requests that ended, in total or since the look before."""

    good: int = 0
    bad: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_NS) + 1))

    def add(self, other: _Tally) -> None:
        self.good += other.good
        self.bad += other.bad
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def since(self, before: _Tally | None) -> _Tally:
        """What came after an earlier total; a version that was forgotten in between began again at 0."""
        if before is None or self.good < before.good or self.bad < before.bad:
            return self
        buckets = [a - b for a, b in zip(self.buckets, before.buckets, strict=True)]
        return _Tally(self.good - before.good, self.bad - before.bad, buckets)

    def rates(self, seconds: float) -> Rates:
        p50, p99, p999 = (quantile(q, DURATION_BUCKETS_SECONDS, self.buckets) for q in (0.5, 0.99, 0.999))
        return Rates(self.good / seconds, self.bad / seconds, p50, p99, p999)


_Tallies = dict[Served | None, _Tally]


class History:
    """Looks at totals from time to time and keeps what came between two looks.

    Args:
        now_seconds: Of the monotonic clock, at the start.
    """

    def __init__(self, now_seconds: float) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._window: deque[tuple[float, _Tallies]] = deque(maxlen=WINDOW_TALLIES)
        self._before: _Tallies = {}
        self._before_seconds = now_seconds

    def look(
        self,
        aggregate: Aggregate,
        now_seconds: float,
        *,
        unix_seconds: float | None = None,
        in_flight: int,
    ) -> None:
        """Take a point.

        Args:
            aggregate: The totals of now.
            now_seconds: Of the monotonic clock.
            unix_seconds: The time of day; that of the system where it is left out.
            in_flight: Requests that front ends have accepted and not answered.
        """
        elapsed_seconds = now_seconds - self._before_seconds
        if elapsed_seconds <= 0:
            return
        totals = _totals(aggregate)
        fresh = {key: tally.since(self._before.get(key)) for key, tally in totals.items()}
        fresh = {key: tally for key, tally in fresh.items() if tally.good or tally.bad}
        self._before, self._before_seconds = totals, now_seconds
        self._window.append((elapsed_seconds, fresh))
        self._points.append(
            Point(
                time.time() if unix_seconds is None else unix_seconds,
                _sum(fresh.values()).rates(elapsed_seconds),
                _by_model(fresh, elapsed_seconds),
                sum(waiting.requests.total() for waiting in aggregate.waiting().values()),
                in_flight,
            )
        )

    def points(self) -> tuple[Point, ...]:
        """All that are kept, the oldest first."""
        return tuple(self._points)

    def now(self) -> Rates:
        """Of all requests of the last seconds."""
        return self._rates(_sum(tally for _, tallies in self._window for tally in tallies.values()))

    def now_by_version(self) -> dict[Served, Rates]:
        """The same by model version, for those that had any."""
        sums: dict[Served, _Tally] = {}
        for _, tallies in self._window:
            for served, tally in tallies.items():
                if served is not None:
                    sums.setdefault(served, _Tally()).add(tally)
        return {served: self._rates(tally) for served, tally in sums.items()}

    def _rates(self, tally: _Tally) -> Rates:
        seconds = sum(elapsed_seconds for elapsed_seconds, _ in self._window)
        return tally.rates(seconds) if seconds else IDLE


def _totals(aggregate: Aggregate) -> _Tallies:
    totals: _Tallies = {}
    for key, requests in aggregate.requests():
        tally = totals.setdefault(key.served, _Tally())
        if key.status == SUCCESS:
            tally.add(_Tally(requests.requests, 0, requests.duration_buckets))
        else:
            tally.bad += requests.requests
    return totals


def _sum(tallies: Iterable[_Tally]) -> _Tally:
    total = _Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _by_model(tallies: _Tallies, seconds: float) -> dict[str, Rates]:
    models: dict[str, _Tally] = {}
    for served, tally in tallies.items():
        if served is not None:
            models.setdefault(served.model, _Tally()).add(tally)
    busiest = heapq.nlargest(
        MODELS_PER_POINT_MAX, models.items(), key=lambda item: item[1].good + item[1].bad
    )
    return {model: tally.rates(seconds) for model, tally in busiest}
