"""The pure parts of the load generator: histograms, schedules, the search for a limit."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.bench.histogram import Histogram, highest, lowest, rank_of
from predictd.server.bench.schedule import arrivals, shared
from predictd.server.bench.session import timeout
from predictd.server.bench.slo import SloSearch
from predictd.server.bench.steady import known, mean_bounds, quantile_bounds

values = st.lists(st.integers(0, 10**13), min_size=1, max_size=200)
EXACT = 1 / 256


def of(each: list[int]) -> Histogram:
    histogram = Histogram()
    for value in each:
        histogram.record(value)
    return histogram


@given(st.integers(0, 10**15))
def test_a_value_lies_in_its_bucket_which_is_narrow(value: int) -> None:
    bucket = next(iter(of([value]).counts))
    assert lowest(bucket) <= value <= highest(bucket)
    assert highest(bucket) - lowest(bucket) <= value * EXACT
    assert lowest(bucket + 1) == highest(bucket) + 1


@given(values, st.floats(0, 1))
def test_a_quantile_is_a_value_that_was_recorded(each: list[int], q: float) -> None:
    exact = sorted(each)[rank_of(q, len(each)) - 1]
    found = of(each).quantile(q)
    assert exact <= found <= exact * (1 + EXACT) + 1


@given(values, values)
def test_histograms_add_up(one: list[int], other: list[int]) -> None:
    both = of(one)
    both.add(of(other).counts)
    assert both.counts == of(one + other).counts
    assert both.total == len(one) + len(other)
    assert math.isclose(both.mean, sum(one + other) / both.total, rel_tol=EXACT, abs_tol=1)
    assert both.least <= min(one + other) <= max(one + other) <= both.largest


@given(values, st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_bounds_hold_their_quantile(each: list[int], q: float) -> None:
    histogram = of(each)
    bounds = quantile_bounds(histogram, q)
    if bounds is not None:
        assert bounds.low <= histogram.quantile(q) <= bounds.high
        assert known(histogram, q)


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_bounds_hold_the_mean(each: list[float]) -> None:
    bounds = mean_bounds(each)
    mean = sum(each) / max(1, len(each))
    assert bounds.low <= mean * (1 + 1e-9) + 1e-9
    assert mean <= bounds.high * (1 + 1e-9) + 1e-9


@given(st.integers(1, 7), st.floats(0.5, 1e6), st.integers(0, 10**15))
def test_processes_share_constant_arrivals(parts: int, rate: float, begin_ns: int) -> None:
    whole = list(itertools.islice(arrivals("constant", rate, begin_ns), 8 * parts))
    each = [
        itertools.islice(arrivals("constant", rate, begin_ns, part=part, parts=parts), 8)
        for part in range(parts)
    ]
    assert sorted(itertools.chain(*each)) == whole


@given(st.integers(0, 100), st.integers(1, 4))
def test_random_arrivals_have_their_rate(seed: int, parts: int) -> None:
    count = 4000
    for part in range(parts):
        times = list(itertools.islice(arrivals("poisson", 1000, 5, part=part, parts=parts, seed=seed), count))
        assert times == sorted(times)
        assert times[0] >= 5
        # The deviation of the sum of so many gaps is 1.6% of it.
        assert math.isclose(times[-1] / 1e9, count * parts / 1000, rel_tol=0.12)
        assert times == list(
            itertools.islice(arrivals("poisson", 1000, 5, part=part, parts=parts, seed=seed), count)
        )


@given(st.integers(0, 1000), st.integers(1, 50))
def test_a_number_is_shared_evenly(whole: int, parts: int) -> None:
    found = shared(whole, parts)
    assert sum(found) == whole
    assert max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True)


@given(st.floats(0.01, 1e5), st.floats(0.01, 1e5), st.sets(st.integers(0, 29)))
def test_the_search_finds_a_limit_in_spite_of_noise(start: float, most: float, noisy: set[int]) -> None:
    search, trials = SloSearch(start), 0
    disturbed = False
    while (rate := search.next_rate()) is not None:
        # Noise that never comes twice in a row.
        disturbed = trials in noisy and not disturbed
        search.tried(kept=rate <= most and not disturbed)
        trials += 1
    assert trials <= 30
    assert search.good is None or search.good <= most
    assert search.bad is None or search.bad > most
    if trials < 30:
        assert search.good is not None
        assert search.bad is not None
        assert search.bad / search.good <= 1.05


@given(st.floats(0.01, 1e5), st.floats(0.01, 1e5))
def test_the_search_gives_up_where_there_is_too_little_to_see(start: float, least: float) -> None:
    search = SloSearch(start, least)
    rates = []
    while (rate := search.next_rate()) is not None:
        rates.append(rate)
        search.tried(kept=False)
    assert search.good is None
    assert search.bad == rates[-1]
    assert rates[0] == start
    assert all(rate >= least for rate in rates[2:])


@given(st.integers(1, 10**18))
def test_a_deadline_has_eight_digits_at_most(nanoseconds: int) -> None:
    text = timeout(nanoseconds)
    unit_ns = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9}[text[-1]]
    assert 1 <= int(text[:-1]) < 10**8
    given_ns = int(text[:-1]) * unit_ns
    assert nanoseconds <= given_ns < nanoseconds + unit_ns or given_ns == (10**8 - 1) * 10**9
