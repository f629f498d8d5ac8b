"""What may be said from ratios: the verdict, the interval, and how often it is wrong."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.measure.statistics import MARGIN, ROUNDS_MIN, Verdict, compare, ratio

RATIOS = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.3, 1.2, 1.25, 1.4, 1.1], Verdict.BETTER),
        ([0.8, 0.9, 0.7, 0.85, 0.8], Verdict.WORSE),
        ([1.3, 1.2, 1.25, 1.4, 0.9], Verdict.TIE),
        ([1.3, 1.2, 1.25, 1.4], Verdict.UNSURE),
        # All of them better, and too little for anybody to care.
        ([1.01, 1.005, 1.012, 1.001, 1.003], Verdict.TIE),
        # In nine rounds one may be lost.
        ([1.2] * 8 + [0.5], Verdict.BETTER),
        ([math.inf] * 5, Verdict.BETTER),
        ([0.0] * 5, Verdict.WORSE),
    ],
)
def test_verdicts(ratios: list[float], verdict: Verdict) -> None:
    assert compare(ratios).verdict is verdict


@given(RATIOS)
def test_the_median_lies_in_the_interval_and_the_interval_among_the_ratios(ratios: list[float]) -> None:
    found = compare(ratios)
    assert min(ratios) <= found.low <= found.ratio <= found.high <= max(ratios)
    assert found.rounds == len(ratios)
    if len(ratios) < ROUNDS_MIN:
        assert found.verdict is Verdict.UNSURE


@given(RATIOS)
def test_turned_around_better_is_worse(ratios: list[float]) -> None:
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    found, other = compare(ratios), compare([1 / one for one in ratios])
    assert other.low == pytest.approx(1 / found.high)
    # The margin is not the same seen from the other side.
    if abs(math.log(found.ratio)) > 2 * MARGIN:
        assert other.verdict is opposite.get(found.verdict, found.verdict)


@pytest.mark.parametrize("rounds", [5, 6, 7, 8, 9, 15])
def test_the_interval_covers_the_median_as_often_as_it_promises(rounds: int) -> None:
    dice = random.Random(rounds)
    drawn = [compare([dice.lognormvariate(0, 0.2) for _ in range(rounds)]) for _ in range(2000)]
    covered = sum(found.low <= 1 <= found.high for found in drawn) / len(drawn)
    assert covered > 0.92


def test_a_score_of_nothing() -> None:
    assert ratio(6, 3) == 2
    assert ratio(0, 0) == 1
    assert ratio(1, 0) == math.inf
    assert ratio(0, 1) == 0
