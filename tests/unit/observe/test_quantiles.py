from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.observe.quantiles import quantile


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, (0, 0, 0), None),
        (0.5, (10, 0, 0), 0.5),
        (0.99, (100, 0, 0), 0.99),
        (0.5, (0, 4, 0), 1.5),
        (0.75, (2, 2, 0), 1.5),
        (1.0, (2, 2, 0), 2.0),
        (0.99, (0, 0, 5), 2.0),
    ],
)
def test_it_is_linear_within_a_bucket_and_ends_at_the_last_bound(
    q: float, buckets: tuple[int, ...], expected: float | None
) -> None:
    assert quantile(q, (1.0, 2.0), buckets) == (None if expected is None else pytest.approx(expected))


@given(
    q=st.floats(0.001, 1.0),
    buckets=st.lists(st.integers(0, 1000), min_size=5, max_size=5),
)
def test_as_many_lie_below_it_as_it_says(q: float, buckets: list[int]) -> None:
    bounds = (1.0, 2.0, 5.0, 10.0)
    value = quantile(q, bounds, buckets)
    if not sum(buckets):
        assert value is None
        return
    assert value is not None
    # What Prometheus would say: the count below the value, interpolated, is the rank.
    below = [0, *accumulate(buckets[:-1])]
    edges = (0.0, *bounds)
    at = next(i for i in range(1, 5) if value <= edges[i])
    rank = below[at - 1] + buckets[at - 1] * (value - edges[at - 1]) / (edges[at] - edges[at - 1])
    assert rank == pytest.approx(min(q * sum(buckets), below[-1]))
