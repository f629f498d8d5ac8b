"""What the batch planner does with deadlines once it knows how long runs take."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from predictd.server.transport.records import NO_DEADLINE_NS, TICKET, Records, TicketFlag
from predictd.server.worker.planning import BatchPlan, LaneRules, Shares, plan_batch, plan_mixed

NOW_NS = 10_000
LANE = 1


class Costs:
    """A run costs so much, and each of its rows so much more."""

    def __init__(self, run_ns: int, row_ns: int) -> None:
        self.run_ns = run_ns
        self.row_ns = row_ns

    def __call__(self, rows: int, now_ns: int) -> int:
        assert now_ns == NOW_NS
        return self.run_ns + max(rows, 1) * self.row_ns


def window_of(seed: int, count: int) -> Records:
    random = Random(seed)
    window = np.zeros(count, TICKET)
    equal = random.random() < 0.5
    for at in range(count):
        window[at]["lane"] = LANE
        window[at]["slot"] = at
        window[at]["priority"] = 2
        window[at]["rows"] = 1 if equal else random.choice([0, 1, 2, 5])
        window[at]["flags"] = 0 if equal else random.choice([0, 0, TicketFlag.PATIENCE])
        window[at]["enqueued_ns"] = NOW_NS - random.randint(0, 1000)
        window[at]["deadline_ns"] = random.choice([NO_DEADLINE_NS, NOW_NS + random.randint(-50, 3000)])
    return window


windows = st.builds(window_of, st.integers(0, 2**32), st.integers(1, 24))
costs = st.builds(Costs, st.sampled_from([0, 10, 500]), st.sampled_from([0, 20, 100, 1000]))
rules = st.builds(
    lambda size, delay_ns, expected: LaneRules(size, delay_ns, batches=True, expected_ns=expected),
    st.sampled_from([1, 4, 32]),
    st.sampled_from([0, 0, 900]),
    costs,
)
many = settings(max_examples=400)


def plan(window: Records, lane: LaneRules) -> BatchPlan:
    return plan_batch(window, np.zeros(len(window), bool), NOW_NS, {LANE: lane}, Shares())


def indices(window: Records, selection: object) -> list[int]:
    return [int(at) for at in np.arange(len(window))[selection]]  # type: ignore[call-overload]


def can_make_it(window: Records, at: int, lane: LaneRules) -> bool:
    """In time for a run that begins now: of its own answer, or of its turn alone."""
    ticket = window[at]
    run_ns = 0 if ticket["flags"] & TicketFlag.PATIENCE else lane.expected_ns(int(ticket["rows"]), NOW_NS)
    return bool(ticket["deadline_ns"] > NOW_NS + run_ns)


@many
@given(windows, rules)
def test_no_run_is_spent_on_what_it_cannot_answer_in_time_and_nothing_else_is_dropped(
    window: Records, lane: LaneRules
) -> None:
    found = plan(window, lane)
    hopeless = indices(window, found.drops.hopeless) if found.drops else []
    expired = indices(window, found.drops.expired) if found.drops else []
    alive = [at for at in range(len(window)) if can_make_it(window, at, lane)]
    assert sorted(hopeless + expired) == [at for at in range(len(window)) if at not in alive]
    assert expired == [at for at in range(len(window)) if window[at]["deadline_ns"] <= NOW_NS]
    kept = indices(window, found.take) + indices(window, found.leave)
    assert sorted(kept) == alive
    event(f"hopeless: {min(len(hopeless), 3)}")


@many
@given(windows, rules)
def test_a_batch_is_the_head_of_what_waits_and_answers_somebody_in_time(
    window: Records, lane: LaneRules
) -> None:
    found = plan(window, lane)
    take = indices(window, found.take)
    alive = [at for at in range(len(window)) if can_make_it(window, at, lane)]
    if not take:
        assert not alive or found.wait_until_ns > NOW_NS
        return
    assert take == alive[: len(take)]
    rows = sum(max(int(window[at]["rows"]), 1) for at in take)
    assert len(take) == 1 or rows <= lane.max_batch_size
    end_ns = NOW_NS + lane.expected_ns(rows, NOW_NS)
    in_time = [
        at for at in take if window[at]["flags"] & TicketFlag.PATIENCE or window[at]["deadline_ns"] > end_ns
    ]
    assert in_time


@many
@given(windows, rules)
def test_where_all_are_in_time_deadlines_change_nothing(window: Records, lane: LaneRules) -> None:
    window["deadline_ns"] = NO_DEADLINE_NS
    found, without = plan(window, lane), plan(window, replace(lane, expected_ns=lambda *_: 0))
    assert indices(window, found.take) == indices(window, without.take)
    assert found.wait_until_ns == without.wait_until_ns


@many
@given(windows, rules)
def test_no_linger_makes_a_full_batch_late(window: Records, lane: LaneRules) -> None:
    found = plan(window, lane)
    event(f"lingers: {found.wait_until_ns > 0}")
    if not found.wait_until_ns:
        return
    strict = [one for one in window[found.leave] if not one["flags"] & TicketFlag.PATIENCE]
    for ticket in strict:
        late_ns = found.wait_until_ns + lane.expected_ns(lane.full, NOW_NS)
        assert late_ns <= ticket["deadline_ns"]


@many
@given(windows, rules)
def test_counting_gives_the_same_as_the_rules_in_full(window: Records, lane: LaneRules) -> None:
    cancelled = np.zeros(len(window), bool)
    full = plan_mixed(window, cancelled, NOW_NS, {LANE: lane}, Shares())
    found = plan(window, lane)
    assert indices(window, found.take) == indices(window, full.take)
    assert indices(window, found.leave) == indices(window, full.leave)
    assert found.wait_until_ns == full.wait_until_ns


def test_one_urgent_ticket_runs_before_the_batch_that_would_make_it_late() -> None:
    window = window_of(0, 3)
    window["rows"], window["flags"] = 1, 0
    window["deadline_ns"] = [NOW_NS + 150, NOW_NS + 5000, NOW_NS + 5000]
    one_by_one = LaneRules(8, 0, batches=True, expected_ns=Costs(0, 100))
    assert indices(window, plan(window, one_by_one).take) == [0]
    together = LaneRules(8, 0, batches=True, expected_ns=Costs(140, 5))
    assert indices(window, plan(window, together).take) == [0], "the others can wait for that"
    window["deadline_ns"] = [NOW_NS + 150, NOW_NS + 160, NOW_NS + 160]
    assert indices(window, plan(window, together).take) == [0, 1, 2], "two are more than one"
    window["deadline_ns"] = [NOW_NS + 156, NOW_NS + 5000, NOW_NS + 5000]
    assert indices(window, plan(window, together).take) == [0, 1, 2]
