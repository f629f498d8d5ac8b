"""A ticket that is alone runs at once only where the planner would have it run, and is read as the arrays read it."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from predictd.server.transport.records import RECORD_BYTES, TICKET, Ticket, TicketFlag
from predictd.server.worker.lone import runs_now
from tests.property.test_planner import NOW_NS, PROBE_FIELDS, Case, make_case, picked, window_of

seeds = st.integers(0, 2**32)
run_times_ns = st.sampled_from([0, 0, 1, 2000])


def lone_case(seed: int, run_ns: int, *, probe: bool) -> Case:
    case = make_case(seed, 1, uniform=True)
    rules = {
        number: dataclasses.replace(lane, expected_ns=lambda _rows, _now_ns: run_ns)
        for number, lane in case.rules.items()
    }
    window = window_of([PROBE_FIELDS]) if probe else case.window
    return dataclasses.replace(case, rules=rules, window=window)


@settings(max_examples=500)
@given(st.builds(lone_case, seeds, run_times_ns, probe=st.sampled_from([False] * 9 + [True])))
def test_it_runs_where_the_planner_takes_it_unless_that_takes_a_wait_into_account(case: Case) -> None:
    ticket = Ticket.unpack(case.window.tobytes())
    lane = case.rules.get(ticket.lane)
    runs = runs_now(ticket, lane, NOW_NS)
    plan = case.plan()
    taken = picked(case, plan.take) == [0]
    if runs:
        assert taken
        assert plan.drops is None
    elif taken:
        assert lane is not None
        assert lane.max_delay_ns


@given(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES))
def test_both_readers_of_a_record_agree(record: bytes) -> None:
    names = [name for name in TICKET.names or () if not name.startswith("reserved")]
    assert tuple(Ticket.unpack(record)) == np.frombuffer(record, TICKET)[names][0].item()


def test_a_probe_does_not_run() -> None:
    case = lone_case(0, 0, probe=True)
    ticket = Ticket.unpack(case.window.tobytes())
    assert ticket.flags == TicketFlag.PROBE
    assert not runs_now(ticket, next(iter(case.rules.values())), NOW_NS)
