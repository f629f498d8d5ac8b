"""What the worker and the front end expect: nothing before they know, nothing absurd after, and never for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.frontend import expectation
from predictd.server.frontend.expectation import Expectation
from predictd.server.worker import run_times
from predictd.server.worker.run_times import LOW, RunTimes

MS = 10**6
costs_ns = st.integers(1, 10**10)
rows = st.integers(0, 300)


@given(st.lists(st.tuples(rows, costs_ns), max_size=run_times.ENOUGH_SAMPLES - 1), rows)
def test_nothing_is_expected_of_runs_before_enough_were_seen(runs: list[tuple[int, int]], asked: int) -> None:
    known = RunTimes()
    for size, run_ns in runs:
        known.ran(size, run_ns, 0)
    assert known.expected_ns(asked, 0) == 0
    assert known.expected == {}


@given(
    st.integers(1, 64),
    st.integers(1, 10**9),
    st.lists(st.integers(10**10, 10**12), max_size=run_times.SAMPLES // 4),
    st.randoms(use_true_random=False),
)
def test_disturbed_runs_say_nothing_while_most_are_not(
    size: int, usual_ns: int, outliers_ns: list[int], random: object
) -> None:
    known = RunTimes()
    runs_ns = [usual_ns] * (run_times.SAMPLES - len(outliers_ns)) + outliers_ns
    random.shuffle(runs_ns)  # type: ignore[attr-defined]
    for run_ns in runs_ns:
        known.ran(size, run_ns, 0)
    assert abs(known.expected_ns(size, 0) - usual_ns) <= 1


@given(st.integers(1, 64), costs_ns, costs_ns)
def test_it_follows_when_runs_change_for_good(size: int, before_ns: int, after_ns: int) -> None:
    known = RunTimes()
    for run_ns in [before_ns] * run_times.SAMPLES + [after_ns] * (run_times.SAMPLES * 4 // 5):
        known.ran(size, run_ns, 0)
    assert abs(known.expected_ns(size, 0) - after_ns) <= 1


@given(st.lists(st.tuples(rows, costs_ns), max_size=60), rows, st.integers(0, 10**12))
def test_what_is_expected_lies_within_what_was_seen(
    runs: list[tuple[int, int]], asked: int, later_ns: int
) -> None:
    known = RunTimes()
    for size, run_ns in runs:
        known.ran(size, run_ns, 0)
    expected_ns = known.expected_ns(asked, later_ns)
    if expected_ns:
        each = [run_ns / max(size, 1) for size, run_ns in runs]
        assert min(each) * max(asked, 1) - 1 <= expected_ns <= max(each) * max(asked, 1) + 1
    longest_ns = max((run_ns for _, run_ns in runs), default=0)
    if later_ns > run_times.KEPT_NS + run_times.RUNS_KEPT * longest_ns:
        assert expected_ns == 0, "nobody is turned away for ever because of what was once"


@given(st.lists(costs_ns, min_size=run_times.SAMPLES, max_size=run_times.SAMPLES))
def test_where_rows_differ_only_the_cheaper_runs_count(runs_ns: list[int]) -> None:
    typical, low = RunTimes(), RunTimes(LOW)
    for run_ns in runs_ns:
        typical.ran(1, run_ns, 0)
        low.ran(1, run_ns, 0)
    assert low.expected_ns(1, 0) <= typical.expected_ns(1, 0)
    assert low.expected_ns(1, 0) <= sorted(runs_ns)[3]


def test_a_size_that_was_not_seen_is_judged_by_its_neighbours() -> None:
    known = RunTimes()
    for _ in range(run_times.SAMPLES):
        known.ran(8, 80 * MS, 0)
        known.ran(1, 20 * MS, 0)
    assert known.expected_ns(16, 0) == 160 * MS
    assert known.expected_ns(2, 0) == 40 * MS
    assert known.expected_ns(4, 0) == 40 * MS
    assert known.expected == {8: 80 * MS, 1: 20 * MS}


# Waits -----------------------------------------------------------------------------------------------------------

answers = st.tuples(st.integers(0, 2000), costs_ns, costs_ns)


@given(
    st.lists(answers, max_size=expectation.ENOUGH_SAMPLES - 1), st.integers(0, 2000), st.integers(0, 10**9)
)
def test_nothing_is_shed_before_something_is_known(
    seen: list[tuple[int, int, int]], ahead: int, left_ns: int
) -> None:
    known = Expectation()
    for before, queue_ns, compute_ns in seen:
        known.answered(before, queue_ns, compute_ns, 0)
    assert known.wait_ns(ahead, 0) == 0
    assert known.excess_ns(ahead, left_ns, 0) == 0


@given(st.lists(answers, max_size=100), st.integers(0, 10**12), st.integers(0, 10**9))
def test_who_finds_nobody_is_never_shed(
    seen: list[tuple[int, int, int]], later_ns: int, left_ns: int
) -> None:
    known = Expectation()
    for before, queue_ns, compute_ns in seen:
        known.answered(before, queue_ns, compute_ns, 0)
    assert known.excess_ns(0, left_ns, later_ns) == 0


@given(st.lists(answers, min_size=1, max_size=100), st.integers(1, 2000))
def test_an_expectation_does_not_outlive_what_it_was_learned_from(
    seen: list[tuple[int, int, int]], ahead: int
) -> None:
    known = Expectation()
    for before, queue_ns, compute_ns in seen:
        known.answered(before, queue_ns, compute_ns, 0)
    _, queue_ns, compute_ns = seen[-1]
    end_ns = expectation.KEPT_NS + expectation.WAITS_KEPT * (queue_ns + compute_ns)
    assert known.wait_ns(ahead, end_ns + 1) == 0


@given(
    st.integers(1, 10**8),
    st.lists(st.integers(1, 500), min_size=expectation.SAMPLES, max_size=expectation.SAMPLES),
    st.lists(st.integers(10**10, 10**12), max_size=expectation.SAMPLES // 2),
    st.integers(1, 1000),
)
def test_waits_grow_with_those_ahead_and_outliers_say_nothing(
    each_ns: int, aheads: list[int], outliers_ns: list[int], asked: int
) -> None:
    known = Expectation()
    for at, ahead in enumerate(aheads):
        queue_ns = outliers_ns[at] * ahead if at < len(outliers_ns) else each_ns * ahead
        known.answered(ahead, queue_ns, each_ns, 0)
    assert abs(known.wait_ns(asked, 0) - each_ns * asked) <= 1
    wait_ns = known.wait_ns(asked, 0)
    assert known.excess_ns(asked, int(2 * wait_ns + each_ns), 0) == 0
    assert known.excess_ns(asked, wait_ns, 0) > 0


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_it_follows_a_load_that_changes(before_ns: int, after_ns: int) -> None:
    known = Expectation()
    for each_ns, times in ((before_ns, expectation.SAMPLES), (after_ns, expectation.SAMPLES // 2 + 4)):
        for _ in range(times):
            known.answered(10, 10 * each_ns, each_ns, 0)
            known.wait_ns(1, 0)
    assert abs(known.wait_ns(100, 0) - 100 * after_ns) <= 1
