"""What is measured of a candidate, and what makes one measurement better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_STEP, _FINE_STEP = 4, 2


@dataclass(frozen=True, slots=True)
class Point:
    """What a number of callers got, each of whom sends its next request when it has its answer.

    Attributes:
        callers: How many.
        per_second: Answers a second, of all of them.
        p50_seconds: Latency that half of the answers did not exceed.
        p99_seconds: Latency that 99% of the answers did not exceed.
        answers: How many were measured.
    """

    callers: int
    per_second: float
    p50_seconds: float
    p99_seconds: float
    answers: int


@dataclass(frozen=True, slots=True)
class Objective:
    """What is wanted.

    Attributes:
        callers: At once, at most: this many saturate the daemon.
        slo_seconds: 99% of the answers shall come within this; None where only throughput counts.
    """

    callers: int
    slo_seconds: float | None = None

    def meets(self, point: Point) -> bool:
        """Whether the answers came in time."""
        return self.slo_seconds is None or point.p99_seconds <= self.slo_seconds

    def best(self, points: Sequence[Point]) -> Point | None:
        """The point with the most answers among those in time; None if there is none."""
        return max(filter(self.meets, points), key=lambda point: point.per_second, default=None)

    def score(self, points: Sequence[Point]) -> float:
        """Answers a second, all in time; 0 if they never are."""
        best = self.best(points)
        return 0.0 if best is None else best.per_second

    def ladder(self, *, whole: bool) -> tuple[int, ...]:
        """Numbers of callers to measure with, ascending.

        Args:
            whole: From a single caller on, for the record; otherwise only what the score needs.
        """
        if self.slo_seconds is None and not whole:
            return (self.callers,)
        step = _STEP if self.slo_seconds is None else _FINE_STEP
        steps = [1]
        while steps[-1] * step < self.callers:
            steps.append(steps[-1] * step)
        return tuple(dict.fromkeys((*steps, self.callers)))

    def goes_on(self, points: Sequence[Point]) -> bool:
        """Whether more callers are worth a measurement: with more of them nobody is answered sooner."""
        return not points or self.meets(points[-1])
