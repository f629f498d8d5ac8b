"""Searches the highest rate that keeps a limit. No clock, no I/O: the caller measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from predictd.server.bench.results import Point

# Rates closer than this are not told apart.
_PRECISION = 0.05
_STEP = 2.0
_TRIALS_MAX = 30


@dataclass(frozen=True, slots=True)
class Slo:
    """A limit.

    Attributes:
        quantile: A name of `results.QUANTILES`.
        limit_seconds: That this share of the answers shall not exceed.
    """

    quantile: str
    limit_seconds: float

    def kept(self, point: Point) -> bool:
        """Whether a load keeps it: in time, all of it, and without errors."""
        found = point.quantiles.get(self.quantile)
        if found is None or found.seconds > self.limit_seconds:
            return False
        return not point.errors and not point.unanswered and not point.overloaded


class SloSearch:
    """Doubles or halves a rate until the limit lies between two, then divides what is between them.

    A rate that fails is tried once more: on a shared machine a single second of noise shall not decide.

    Args:
        start: First rate, a second.
        least: Below this it gives up: too few requests to tell.
    """

    def __init__(self, start: float, least: float = 0.0) -> None:
        self._least = least
        self._rate = start
        self._retry = False
        self._trials = 0
        self.good: float | None = None
        self.bad: float | None = None

    def next_rate(self) -> float | None:
        """What to measure now; None if it is found."""
        if self._trials >= _TRIALS_MAX:
            return None
        if self.good is not None and self.bad is not None and self.bad / self.good <= 1 + _PRECISION:
            return None
        return None if self.good is None and self.bad is not None and self._rate < self._least else self._rate

    def tried(self, *, kept: bool) -> None:
        """What came of it."""
        self._trials += 1
        if not kept and not self._retry:
            self._retry = True
            return
        self._retry = False
        if kept:
            self.good = self._rate
        else:
            self.bad = self._rate
        if self.good is None:
            self._rate /= _STEP
        elif self.bad is None:
            self._rate *= _STEP
        else:
            self._rate = math.sqrt(self.good * self.bad)
