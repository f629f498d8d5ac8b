"""Percentiles of latencies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.measure.latency import Latency, latency


def test_a_percentile_is_one_of_the_latencies() -> None:
    found = latency(np.arange(1, 1001) * 10**6)
    assert found == Latency(0.001, 0.5005, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def test_a_single_run_is_all_of_them() -> None:
    assert latency(np.array([2 * 10**9])) == Latency(*[2.0] * 8)


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_they_ascend(nanoseconds: list[int]) -> None:
    found = latency(np.array(nanoseconds))
    ascending = [
        *(found.min_seconds, found.p50_seconds, found.p90_seconds, found.p95_seconds),
        *(found.p99_seconds, found.p999_seconds, found.max_seconds),
    ]
    assert ascending == sorted(ascending)
    assert set(ascending) <= {each / 1e9 for each in nanoseconds}
