"""Statistics of a measurement in intervals: is it steady, and how sure is what it says? No clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from predictd.server.bench.histogram import Histogram, rank_of

# So many intervals are compared with as many before them.
WINDOW = 5
_RATE_TOLERANCE = 0.1
_LATENCY_TOLERANCE = 0.2
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval of confidence of 95%."""

    low: float
    high: float


def steady(counts: Sequence[int], mean_seconds: Sequence[float]) -> bool:
    """Whether throughput and latency are what they were a while ago.

    Args:
        counts: Answers of each interval so far.
        mean_seconds: Their mean latency; anything for an interval without answers.
    """
    if len(counts) < 2 * WINDOW:
        return False
    before, now = (_window(counts, mean_seconds, start) for start in (-2 * WINDOW, -WINDOW))
    if not before[0] or not now[0]:
        return False
    # Few answers differ by chance.
    chance = 2 / math.sqrt(min(before[0], now[0]))
    return _near(before[0], now[0], _RATE_TOLERANCE + chance) and _near(
        before[1], now[1], _LATENCY_TOLERANCE + chance
    )


def _window(counts: Sequence[int], mean_seconds: Sequence[float], start: int) -> tuple[int, float]:
    numbers = range(len(counts) + start, len(counts) + start + WINDOW)
    answers = sum(counts[n] for n in numbers)
    weighed = sum(counts[n] * mean_seconds[n] for n in numbers if counts[n])
    return answers, weighed / answers if answers else 0.0


def _near(one: float, other: float, tolerance: float) -> bool:
    return abs(one - other) <= tolerance * max(one, other)


def mean_bounds(values: Sequence[float]) -> Bounds:
    """Of the mean, by Student's t: the intervals count as samples. Everything is possible below two of them."""
    if len(values) < 2:
        return Bounds(0.0, math.inf)
    mean, n = fmean(values), len(values) - 1
    z = _Z95
    # Expansion of the quantile of t around that of the normal distribution: exact to 1% from 4 on.
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    half = t * stdev(values) / math.sqrt(len(values))
    return Bounds(max(0.0, mean - half), mean + half)


def quantile_bounds(histogram: Histogram, q: float) -> Bounds | None:
    """Of a quantile, by the order of the values alone. None if there are too few values for an upper bound."""
    total = histogram.total
    half = _Z95 * math.sqrt(total * q * (1 - q))
    low, high = math.floor(total * q - half), math.ceil(total * q + half) + 1
    if high > total:
        return None
    return Bounds(histogram.at_rank(max(1, low)), histogram.at_rank(high))


def known(histogram: Histogram, q: float) -> bool:
    """Whether at least one value lies above a quantile: else it is the largest by another name."""
    return histogram.total > 0 and rank_of(q, histogram.total) < histogram.total
