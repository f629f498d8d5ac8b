"""Puts the intervals of all processes together and says when it is enough. No clock, no I/O."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from predictd.server.bench.histogram import Histogram
from predictd.server.bench.messages import Interval
from predictd.server.bench.results import (
    CURVE,
    QUANTILES,
    Batches,
    ClientSide,
    ModelResult,
    Point,
    Quantile,
)
from predictd.server.bench.steady import known, mean_bounds, quantile_bounds, steady
from predictd.server.measure import quantities

# A load that does not become steady is measured all the same, and said not to be.
WARM_UPS_MAX = 5
# Fewer answers say nothing about one in a hundred; a slow model gets more time, but not without end.
_LEAST_ANSWERS = 100
_LONGEST = 4
_CPU_BUSY = 0.9
_LATE_SECONDS = 1e-3
_LATE_SHARE = 0.1
_LAG_SECONDS = 5e-3


@dataclass(slots=True)
class Slice:
    """An interval of all processes together."""

    models: list[Histogram]
    late: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    lag_ns: int = 0
    cpu_seconds: list[float] = field(default_factory=list)
    wanted_seconds: list[float] = field(default_factory=list)
    told: int = 0

    def add(self, part: Interval) -> None:
        """Put what a process told in."""
        for mine, counts in zip(self.models, part.latencies, strict=True):
            mine.add(counts)
        self.late.add(part.late)
        self.errors.update(part.errors)
        self.in_flight += part.in_flight
        self.lag_ns = max(self.lag_ns, part.lag_ns)
        self.cpu_seconds.append(part.cpu_seconds)
        self.wanted_seconds.append(part.cpu_seconds + part.waited_seconds)
        self.told += 1

    @property
    def answers(self) -> int:
        """Of all models."""
        return sum(each.total for each in self.models)

    def together(self) -> Histogram:
        """The latencies of all models."""
        return together(self.models)


def together(histograms: Sequence[Histogram]) -> Histogram:
    """Several histograms as one."""
    whole = Histogram()
    for each in histograms:
        whole.add(each.counts)
    return whole


@dataclass(frozen=True, slots=True)
class Times:
    """How long things are measured.

    Attributes:
        interval_seconds: Length of an interval.
        warm_up_seconds: At least so long before the measurement.
        seconds: Of the measurement.
    """

    interval_seconds: float
    warm_up_seconds: float
    seconds: float


class Meter:
    """One load.

    Args:
        processes: That tell their intervals.
        models: That are asked.
        times: How long.
    """

    def __init__(self, processes: int, models: int, times: Times) -> None:
        self._processes = processes
        self._models = models
        self._times = times
        self._open: dict[int, Slice] = {}
        self.slices: list[Slice] = []
        self._means: list[float] = []
        self._counts: list[int] = []
        self._start: int | None = None
        self._steady = False
        self.failure = ""

    def add(self, part: Interval) -> bool:
        """Take what a process told; says whether that is enough."""
        self.failure = self.failure or part.failure
        if self.failure:
            return True
        whole = self._open.setdefault(part.number, Slice([Histogram() for _ in range(self._models)]))
        whole.add(part)
        if whole.told < self._processes:
            return False
        del self._open[part.number]
        self.slices.append(whole)
        self._counts.append(whole.answers)
        self._means.append(whole.together().mean)
        if self._start is None:
            self._warm()
            return False
        return self._enough(self._start)

    def _warm(self) -> None:
        elapsed = len(self.slices) * self._times.interval_seconds
        if elapsed < self._times.warm_up_seconds:
            return
        self._steady = steady(self._counts, self._means)
        if self._steady or elapsed >= WARM_UPS_MAX * self._times.warm_up_seconds:
            self._start = len(self.slices)

    def _enough(self, start: int) -> bool:
        elapsed = (len(self.slices) - start) * self._times.interval_seconds
        if elapsed < self._times.seconds:
            return False
        return sum(self._counts[start:]) >= _LEAST_ANSWERS or elapsed >= _LONGEST * self._times.seconds

    def progress(self) -> str:
        """What is going on."""
        if not self.slices:
            return "connecting"
        last = self.slices[-5:]
        latencies = together([each.together() for each in last])
        rate = latencies.total / len(last) / self._times.interval_seconds
        doing = "warming up" if self._start is None else "measuring"
        seconds = len(self.slices) * self._times.interval_seconds
        return f"{doing} {seconds:.1f} s: {rate:,.0f}/s, p99 {quantities.seconds(latencies.quantile(0.99) / 1e9)}"

    def point(
        self,
        *,
        callers: int,
        rate: float,
        names: Sequence[str],
        unanswered: int,
        batches: Batches | None,
    ) -> Point:
        """What the measurement came to."""
        start = len(self.slices) if self._start is None else self._start
        measured = self.slices[start:]
        interval = self._times.interval_seconds
        seconds = len(measured) * interval
        by_model = [together([each.models[number] for each in measured]) for number in range(self._models)]
        whole = together(by_model)
        bounds = mean_bounds([each.answers / interval for each in measured])
        return Point(
            callers=callers,
            rate=rate,
            seconds=seconds,
            warm_up_seconds=start * interval,
            steady=self._steady,
            answers=whole.total,
            per_second=whole.total / seconds if seconds else 0.0,
            per_second_low=bounds.low,
            per_second_high=bounds.high,
            mean_seconds=whole.mean / 1e9,
            max_seconds=whole.largest / 1e9,
            quantiles={name: _quantile(whole, q) for name, q in QUANTILES.items() if known(whole, q)},
            curve=[Quantile(q, whole.quantile(q) / 1e9) for q in CURVE if known(whole, q)],
            errors=dict(sum((each.errors for each in measured), Counter())),
            unanswered=unanswered,
            in_flight=statistics.fmean(each.in_flight for each in measured) if measured else 0.0,
            client=client_side(measured, interval, whole),
            models=[
                ModelResult(name, each.total, each.quantile(0.5) / 1e9, each.quantile(0.99) / 1e9)
                for name, each in zip(names, by_model, strict=True)
            ]
            if len(names) > 1
            else [],
            batches=batches,
        )


def _quantile(whole: Histogram, q: float) -> Quantile:
    bounds = quantile_bounds(whole, q)
    value = whole.quantile(q) / 1e9
    return Quantile(q, value) if bounds is None else Quantile(q, value, bounds.low / 1e9, bounds.high / 1e9)


def _of_busiest(seconds: Sequence[Sequence[float]], interval_seconds: float) -> float:
    """The share of the time that the busiest process had, from what each had in each interval."""
    ranked = (sum(each) for each in zip(*map(sorted, seconds), strict=False))
    return max(ranked, default=0.0) / (len(seconds) * interval_seconds)


def client_side(measured: Sequence[Slice], interval_seconds: float, whole: Histogram) -> ClientSide:
    """Whether the load generator was what limited.

    Args:
        measured: The intervals.
        interval_seconds: Length of each.
        whole: The latencies of all of them.
    """
    if not measured:
        return ClientSide(0.0, 0.0, 0.0, [])
    busiest = _of_busiest([each.cpu_seconds for each in measured], interval_seconds)
    wanted = _of_busiest([each.wanted_seconds for each in measured], interval_seconds)
    late = together([each.late for each in measured]).quantile(0.99) / 1e9
    lag = statistics.median(each.lag_ns for each in measured) / 1e9
    found = []
    if busiest >= _CPU_BUSY:
        found.append(f"a process of the load generator used {busiest:.0%} of a CPU: give it more --processes")
    elif wanted >= _CPU_BUSY:
        # It was never idle, so a server that answers sooner would not have been asked more.
        found.append(
            f"a process of the load generator used {busiest:.0%} of a CPU and wanted {wanted:.0%}, but others had it: "
            "give it CPUs of its own"
        )
    if late > max(_LATE_SECONDS, _LATE_SHARE * whole.quantile(0.99) / 1e9):
        found.append(f"1% of the requests left {quantities.seconds(late)} after their time or later")
    if lag > max(_LAG_SECONDS, whole.quantile(0.5) / 1e9):
        found.append(f"its event loop was {quantities.seconds(lag)} late")
    return ClientSide(busiest, late, lag, found)
