"""From numbers to coordinates of a plot, and the numbers that stand at its axes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """One direction.

    Attributes:
        low: The number at `start`.
        high: The number at `end`.
        start: A coordinate.
        end: Another one.
        log: Logarithmic: all numbers are above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a number is."""
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (here - low) / ((high - low) or 1.0) * (self.end - self.start)


def round_numbers(low: float, high: float) -> list[float]:
    """Of a logarithmic scale, between two bounds."""
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = (step * 10.0**power for power in range(first, last + 1) for step in steps)
    return [mark for mark in marks if low <= mark <= high]
