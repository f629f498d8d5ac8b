"""The batch planner: what every plan keeps, whatever waits, and what holds over a whole life of tickets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from predictd.server.transport.records import NO_DEADLINE_NS, TICKET, Records, TicketFlag
from predictd.server.worker.planning import (
    BatchPlan,
    LaneRules,
    Shares,
    is_uniform,
    plan_batch,
    plan_mixed,
)

NOW_NS = 10_000
UNKNOWN_LANE = 9
PROBE_FIELDS = {
    "lane": 0,
    "shape_key": 0,
    "rows": 0,
    "bytes": 0,
    "flags": int(TicketFlag.PROBE),
    "deadline_ns": NO_DEADLINE_NS,
}

many = settings(max_examples=500)


def window_of(found: list[dict[str, int]]) -> Records:
    window = np.zeros(len(found), TICKET)
    for at, ticket in enumerate(found):
        for name, value in ticket.items():
            window[at][name] = value
        window[at]["slot"] = at
    return window


def spent(amounts: dict[int, int]) -> Shares:
    shares = Shares()
    for lane, amount_ns in sorted(amounts.items(), key=lambda item: item[1]):
        shares.charge(lane, amount_ns - shares.spent_ns(lane))
    return shares


@dataclass(frozen=True)
class Case:
    """A decision to take."""

    window: Records
    cancelled: Any
    rules: dict[int, LaneRules]
    shares: Shares
    room: bool

    def plan(self) -> BatchPlan:
        return plan_batch(self.window, self.cancelled, NOW_NS, self.rules, self.shares, room=self.room)

    @property
    def probe(self) -> Any:
        return (self.window["flags"] & TicketFlag.PROBE) != 0

    @property
    def known(self) -> Any:
        return np.array([int(lane) in self.rules for lane in self.window["lane"]], bool)

    @property
    def alive(self) -> list[int]:
        """Tickets that ask for a run and can still have one."""
        late = self.window["deadline_ns"] <= NOW_NS
        return [int(at) for at in np.flatnonzero(~(self.cancelled | self.probe | late) & self.known)]

    def lane(self, at: int) -> LaneRules:
        return self.rules[int(self.window[at]["lane"])]

    def key(self, at: int) -> tuple[int, int]:
        ticket = self.window[at]
        return int(ticket["lane"]), int(ticket["shape_key"])

    def rank(self, at: int) -> tuple[int, int]:
        """Sorts tickets into the order in which a batch takes them."""
        return int(self.window[at]["priority"]), at

    def alone(self, at: int) -> bool:
        return bool(self.window[at]["flags"] & TicketFlag.ALONE) or not self.lane(at).batches

    def preferred(self, mates: list[int]) -> int:
        """How many of these make the largest preferred size that can be had, 0 for none."""
        lane = self.lane(mates[0])
        sizes = [self.rows(mates[: count + 1]) for count in range(len(mates))]
        alone = next((at for at, one in enumerate(mates) if self.alone(one)), len(mates))
        return max((at + 1 for at, size in enumerate(sizes[:alone]) if size in lane.preferred), default=0)

    def rows(self, indices: list[int]) -> int:
        return sum(max(int(self.window[at]["rows"]), 1) for at in indices)

    def mates(self, at: int) -> list[int]:
        """The living tickets of the same lane and shape, in the order in which a batch takes them."""
        return sorted((other for other in self.alive if self.key(other) == self.key(at)), key=self.rank)


def make_rules(random: Random) -> LaneRules:
    max_batch_size = random.choice([1, 3, 4, 8, 12, 64])
    preferred = random.choice([(), (), (4,), (2, 5), (1, 3, 9), (3, 6, 12, 24)])
    return LaneRules(
        max_batch_size=max_batch_size,
        max_delay_ns=random.choice([0, 0, 900, 100_000]),
        batches=random.random() < 0.8,
        preferred=tuple(size for size in preferred if size <= max_batch_size),
    )


def make_case(seed: int, count: int, *, uniform: bool) -> Case:
    """A window of some tickets. Each field is the same in all of them as often as not: chance alone makes no batches.

    Drawn from a seed, which is twenty times as fast as drawing every number from hypothesis.
    """
    random = Random(seed)
    rules = {lane: make_rules(random) for lane in range(1, random.randint(1, 3) + 1)}
    strange = random.random() < 0.4
    choices: dict[str, Callable[[], int]] = {
        "frontend": lambda: random.randint(1, 2),
        "lane": lambda: random.choice([*rules, *rules, UNKNOWN_LANE] if strange else list(rules)),
        "shape_key": lambda: random.choice([7, 7, 8]),
        "rows": lambda: random.choice([0, 1, 1, 2, 3, 15]),
        "bytes": lambda: random.choice([64, 128]),
        "priority": lambda: random.choice([2, 2, 1, 3]),
        "flags": lambda: int(random.choice([0, 0, TicketFlag.VARYING, TicketFlag.ALONE if strange else 0])),
        "enqueued_ns": lambda: NOW_NS - random.randint(0, 1000),
        "deadline_ns": lambda: random.choice(
            [NO_DEADLINE_NS, NOW_NS + random.randint(1, 3000), NOW_NS - strange, NOW_NS + 1 - strange]
        ),
    }
    equal = {name for name in choices if random.random() < 0.6}
    if uniform:
        equal |= {"lane", "shape_key", "rows", "bytes", "priority", "flags"}
    first = {name: choice() for name, choice in choices.items()}
    found = [
        {**{n: choice() for n, choice in choices.items()}, **{n: first[n] for n in equal}}
        for _ in range(count)
    ]
    cancelled = np.zeros(count, bool)
    if strange and not uniform:
        cancelled[[random.randrange(count) for _ in range(random.randint(0, 3))]] = True
        for _ in range(random.randint(0, 3)):
            found[random.randrange(count)].update(PROBE_FIELDS)
    shares = spent({lane: random.randint(0, 5) for lane in rules})
    return Case(window_of(found), cancelled, rules, shares, room=random.random() < 0.8)


seeds, counts = st.integers(0, 2**32), st.integers(1, 24)
uniform_cases = st.builds(make_case, seeds, counts, uniform=st.just(value=True))
cases = st.builds(make_case, seeds, counts, uniform=st.sampled_from([False, False, True]))


def picked(case: Case, selection: Any) -> list[int]:
    """The indices that a selection names."""
    return [int(at) for at in np.arange(len(case.window))[selection]]


def dropped(case: Case, plan: BatchPlan) -> dict[str, list[int]]:
    names = ("expired", "cancelled", "unknown", "probes")
    return {name: picked(case, getattr(plan.drops, name)) if plan.drops else [] for name in names}


# One plan -----------------------------------------------------------------------------------------------------


@many
@given(cases)
def test_every_ticket_is_in_exactly_one_part(case: Case) -> None:
    plan = case.plan()
    drops = dropped(case, plan)
    parts = [picked(case, plan.take), picked(case, plan.leave), *drops.values()]
    assert sorted(at for part in parts for at in part) == list(range(len(case.window)))
    assert (plan.drops is not None) == any(drops.values())
    assert picked(case, plan.leave) == sorted(picked(case, plan.leave))


@many
@given(cases)
def test_what_cannot_run_is_dropped_for_its_own_reason(case: Case) -> None:
    drops = dropped(case, case.plan())
    late = case.window["deadline_ns"] <= NOW_NS
    assert drops["cancelled"] == list(np.flatnonzero(case.cancelled))
    assert drops["unknown"] == list(np.flatnonzero(~case.known & ~case.cancelled & ~case.probe))
    assert drops["expired"] == list(np.flatnonzero(late & case.known & ~case.cancelled & ~case.probe))


@many
@given(cases)
def test_a_batch_has_one_lane_one_shape_and_no_more_rows_than_its_limit(case: Case) -> None:
    take = picked(case, case.plan().take)
    assume(take)
    event(f"tickets in the batch: {min(len(take), 4)}")
    assert set(take) <= set(case.alive)
    assert len({case.key(at) for at in take}) == 1
    assert len(take) == 1 or case.rows(take) <= case.lane(take[0]).max_batch_size
    assert len(take) == 1 or not any(case.alone(at) for at in take)


@many
@given(cases)
def test_a_batch_is_the_head_of_its_shape_and_ends_only_where_the_next_does_not_fit(case: Case) -> None:
    take = picked(case, case.plan().take)
    assume(take)
    mates = case.mates(take[0])
    assert mates[: len(take)] == take
    if len(take) < len(mates) and not case.alone(take[0]) and not case.preferred(mates):
        following = mates[len(take)]
        too_many = case.rows([*take, following]) > case.lane(take[0]).max_batch_size
        assert too_many or case.alone(following)


@many
@given(cases)
def test_a_batch_has_the_largest_preferred_size_that_can_be_had(case: Case) -> None:
    take = picked(case, case.plan().take)
    assume(take and case.lane(take[0]).preferred and not case.alone(take[0]))
    wanted = case.preferred(case.mates(take[0]))
    event(f"a preferred size can be had: {wanted > 0}")
    if wanted and case.rows(take[:1]) < case.lane(take[0]).max_batch_size:
        assert len(take) == wanted


@many
@given(cases)
def test_the_most_urgent_goes_first_then_the_lane_with_least_compute_time_then_the_oldest(case: Case) -> None:
    take = picked(case, case.plan().take)
    assume(take)
    order = {
        at: (int(case.window[at]["priority"]), case.shares.spent_ns(int(case.window[at]["lane"])))
        for at in case.alive
    }
    assert order[take[0]] == min(order.values())
    assert take[0] == min(at for at in case.alive if order[at] == order[take[0]])


@many
@given(cases)
def test_nothing_waits_while_it_could_run_but_for_a_linger(case: Case) -> None:
    plan = case.plan()
    take = picked(case, plan.take)
    assert bool(take) == (bool(case.alive) and not plan.wait_until_ns)
    lanes = [rules for lane, rules in case.rules.items() if lane in {case.key(at)[0] for at in case.alive}]
    if all(rules.max_delay_ns == 0 for rules in lanes) or not case.room:
        assert plan.wait_until_ns == 0


@many
@given(cases)
def test_a_batch_lingers_as_specified_and_never_else(case: Case) -> None:
    plan = case.plan()
    alive = case.alive
    one_group = len({case.key(at) for at in alive}) == 1 and not any(case.alone(at) for at in alive)
    end_ns = 0
    if one_group and case.room and not case.preferred(case.mates(alive[0])):
        lane = case.lane(alive[0])
        if lane.max_delay_ns and case.rows(alive) < (lane.preferred or (lane.max_batch_size,))[-1]:
            end_ns = min(
                int(one["enqueued_ns"])
                + min(lane.max_delay_ns, (int(one["deadline_ns"]) - int(one["enqueued_ns"])) // 2)
                for one in case.window[alive]
            )
    expected = end_ns if end_ns > NOW_NS else 0
    event(f"lingers: {expected > 0}")
    assert plan.wait_until_ns == expected
    if expected:
        assert all(expected < int(one["deadline_ns"]) for one in case.window[alive])


@many
@given(cases)
def test_a_probe_comes_back_once_nothing_older_of_its_sender_and_priority_stays(case: Case) -> None:
    plan = case.plan()
    probes = dropped(case, plan)["probes"]
    staying = set(case.alive) - set(picked(case, plan.take))

    def sender(at: int) -> tuple[int, int]:
        return int(case.window[at]["frontend"]), int(case.window[at]["priority"])

    for at in np.flatnonzero(case.probe & ~case.cancelled):
        older = [other for other in staying if other < at and sender(other) == sender(int(at))]
        assert (int(at) in probes) == (not older)
    assert all(case.probe[at] for at in probes)


@many
@given(cases)
def test_a_batch_that_is_called_uniform_is_so(case: Case) -> None:
    plan = case.plan()
    batch = case.window[plan.take]
    if plan.uniform:
        assert len(batch)
        for name in ("lane", "shape_key", "rows", "bytes", "priority", "flags"):
            assert (batch[name] == batch[name][0]).all()
    else:
        assert not len(batch) or not is_uniform(batch)


@many
@given(uniform_cases)
def test_counting_gives_the_same_as_the_rules_in_full(case: Case) -> None:
    quick = case.plan()
    full = plan_mixed(case.window, case.cancelled, NOW_NS, case.rules, case.shares, room=case.room)
    assert picked(case, quick.take) == picked(case, full.take)
    assert picked(case, quick.leave) == picked(case, full.leave)
    assert dropped(case, quick) == dropped(case, full)
    assert (quick.uniform, quick.wait_until_ns) == (full.uniform, full.wait_until_ns)


# A life of tickets --------------------------------------------------------------------------------------------


@given(cases, st.data())
def test_every_ticket_is_served_once_and_in_order(case: Case, data: st.DataObject) -> None:
    """Leftovers are planned again, as from the carry, with newcomers behind them."""
    window, waiting = case.window[:0], case.window
    order: dict[tuple[int, int, int], list[int]] = {}
    ended: list[int] = []
    taken: set[int] = set()
    while len(window) or len(waiting):
        arriving = data.draw(st.integers(0 if len(window) else 1, len(waiting)), "arriving")
        window = np.concatenate((window, waiting[:arriving]))
        waiting = waiting[arriving:]
        step = Case(window, case.cancelled[window["slot"]], case.rules, case.shares, room=False)
        plan = step.plan()
        drops = dropped(step, plan)
        for ticket in window[plan.take]:
            key = (int(ticket["lane"]), int(ticket["shape_key"]), int(ticket["priority"]))
            order.setdefault(key, []).append(int(ticket["slot"]))
        taken |= set(window["slot"][plan.take].tolist())
        for slot in window["slot"][drops["probes"]]:
            one = case.window[slot]
            older = [
                at
                for at in case.alive
                if at < slot
                and case.window[at]["frontend"] == one["frontend"]
                and case.window[at]["priority"] == one["priority"]
            ]
            assert set(older) <= taken
        for part in (plan.take, *drops.values()):
            ended += window["slot"][part].tolist()
        window = window[plan.leave]
    assert sorted(ended) == list(range(len(case.window)))
    assert all(slots == sorted(slots) for slots in order.values())


@given(st.lists(st.integers(1, 50), min_size=2, max_size=4), st.integers(5, 60))
def test_busy_lanes_share_the_compute_time(costs_ns: list[int], turns: int) -> None:
    """No lane that always has work falls behind another by more than one run."""
    rules = {lane: LaneRules(4, 0, batches=True) for lane in range(len(costs_ns))}
    window = window_of(
        [{"lane": lane, "rows": 1, "priority": 2, "deadline_ns": NO_DEADLINE_NS} for lane in rules]
    )
    shares, served_ns = Shares(), dict.fromkeys(rules, 0)
    for _ in range(turns):
        plan = plan_batch(window, np.zeros(len(window), bool), NOW_NS, rules, shares)
        lane = int(window[plan.take]["lane"][0])
        shares.charge(lane, costs_ns[lane])
        served_ns[lane] += costs_ns[lane]
    assert max(served_ns.values()) - min(served_ns.values()) <= max(costs_ns)


@given(st.integers(1, 1000), st.integers(1, 20))
def test_a_lane_that_was_idle_does_not_shut_the_others_out(runs_before: int, turns: int) -> None:
    rules = {lane: LaneRules(4, 0, batches=True) for lane in (1, 2)}
    shares = Shares()
    for _ in range(runs_before):
        shares.charge(1, 10)
    window = window_of(
        [{"lane": lane, "rows": 1, "priority": 2, "deadline_ns": NO_DEADLINE_NS} for lane in rules]
    )
    served = {1: 0, 2: 0}
    for _ in range(2 * turns):
        plan = plan_batch(window, np.zeros(2, bool), NOW_NS, rules, shares)
        lane = int(window[plan.take]["lane"][0])
        shares.charge(lane, 10)
        served[lane] += 1
    assert abs(served[1] - served[2]) <= 2


@given(st.dictionaries(st.integers(1, 20), st.integers(1, 10**9), min_size=1), st.data())
def test_a_lane_that_went_leaves_nothing_behind(amounts: dict[int, int], data: st.DataObject) -> None:
    shares = spent(amounts)
    gone = data.draw(st.sampled_from(sorted(amounts)))
    shares.forget(gone)
    assert shares.spent_ns(gone) == shares.spent_ns(99), "like any lane that was never served"
    for lane in amounts:
        shares.forget(lane)
    assert not shares._spent_ns
