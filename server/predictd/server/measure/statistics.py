"""What repeated measurements allow to say, on a machine that is never quiet.

Candidates are measured in rounds, each once a round, so that what slows the machine down for a while slows all of
them. What counts is the ratio of two candidates within a round; of the ratios of all rounds the median, with an
interval of confidence from their order alone, which assumes nothing of how the noise is distributed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# With five rounds the interval from the least to the largest covers the true median with 93.75%.
ROUNDS_MIN = 5
_CONFIDENCE = 0.9375
# A smaller difference is not worth a setting that somebody has to understand.
MARGIN = 0.02


class Verdict(enum.StrEnum):
    """How a candidate compares with another."""

    BETTER = "better"
    WORSE = "worse"
    TIE = "tie"
    UNSURE = "too few rounds"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against another.

    Attributes:
        ratio: The median of its score by the other's.
        low: Lower end of the interval of confidence; that of all rounds if they are too few for one.
        high: Upper end.
        rounds: How many were compared.
        verdict: What that means.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    verdict: Verdict


def compare(ratios: Sequence[float]) -> Comparison:
    """Judge a candidate by its ratios, one for each round; at least one."""
    ordered = sorted(ratios)
    skip = _skipped(len(ordered))
    low, high = ordered[skip], ordered[-1 - skip]
    middle = float(median(ordered))
    return Comparison(middle, low, high, len(ordered), _verdict(middle, low, high, len(ordered)))


def _verdict(middle: float, low: float, high: float, rounds: int) -> Verdict:
    if rounds < ROUNDS_MIN:
        return Verdict.UNSURE
    if low > 1 and middle >= 1 + MARGIN:
        return Verdict.BETTER
    if high < 1 and middle <= 1 - MARGIN:
        return Verdict.WORSE
    return Verdict.TIE


def _skipped(rounds: int) -> int:
    """How many of the extremes on each side the interval may leave out."""
    tail, skipped = 2.0**-rounds, 0
    while skipped + 1 < rounds / 2:
        tail += math.comb(rounds, skipped + 1) * 2.0**-rounds
        if 1 - 2 * tail < _CONFIDENCE:
            break
        skipped += 1
    return skipped


def ratio(score: float, other: float) -> float:
    """A score by another; both may be 0, which is a tie."""
    if other > 0:
        return score / other
    return math.inf if score > 0 else 1.0
