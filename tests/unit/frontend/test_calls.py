"""Slots and generations, tickets, and what is due after a worker died."""

from __future__ import annotations

import numpy as np
import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.errors import OverloadedError
from predictd.server.frontend.calls import (
    Call,
    CallTable,
    Recovery,
    held_slots,
    probe_ticket,
    recovery,
    waiting,
)
from predictd.server.frontend.waiting import LaneQueue
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.transport.allocator import Block
from predictd.server.transport.claims import ClaimState
from predictd.server.transport.records import (
    NO_DEADLINE_NS,
    NO_SEGMENT,
    RECORD_BYTES,
    TICKET,
    TICKET_STRUCT,
    TicketFlag,
)
from tests.fixtures.frontend import lane


def call(table: CallTable, **changes: object) -> Call:
    slot, generation = table.take_slot()
    values: dict[str, object] = {
        "slot": slot,
        "generation": generation,
        "lane": lane(),
        "block": Block(3, 4, 512),
        "wanted": (0,),
        "future": None,
        "rows": 5,
        "shape_key": 2**63 + 1,
        "flags": 0,
        "size_bytes": 300,
        "priority": 2,
        "enqueued_ns": 6,
        "deadline_ns": NO_DEADLINE_NS,
    }
    return Call(**(values | changes))  # type: ignore[arg-type]


def test_slots_are_lent_up_to_the_limit_and_come_back() -> None:
    table = CallTable(2)
    first, second = call(table), call(table)
    for one in (first, second):
        table.put(one)
    assert (len(table), list(table)) == (2, [first, second])
    with pytest.raises(OverloadedError, match=r"^2 requests are in flight, which is this front end's limit$"):
        table.take_slot()
    table.end(first)
    assert (len(table), list(table)) == (1, [second])
    assert table.take_slot()[0] == first.slot


def test_calls_wait_that_no_worker_holds_and_somebody_waits_for() -> None:
    table = CallTable(6)
    first, second = (LaneQueue(level, QueueRules(max_queue_size=9)) for level in (1, 2))
    held, given_up, older, younger, urgent, other = (
        call(table, queue=second, enqueued_ns=1),
        call(table, queue=None, enqueued_ns=2),
        call(table, queue=second, enqueued_ns=30),
        call(table, queue=second, enqueued_ns=40),
        call(table, queue=first, enqueued_ns=50),
        call(table, queue=second, enqueued_ns=90, lane=lane(pool=2)),
    )
    calls = [held, given_up, younger, older, urgent, other]
    taken = {(held.slot, held.generation), (older.slot, older.generation + 1)}
    own, others = lane().id, lane(pool=2).id
    assert sorted(waiting(calls, taken, 100), key=lambda series: (series.lane, series.priority)) == [
        WaitingSeries(own, 1, 1, 50),
        WaitingSeries(own, 2, 2, 70),
        WaitingSeries(others, 2, 1, 10),
    ]
    assert waiting([held, given_up], taken, 100) == ()


def test_a_late_record_finds_nobody() -> None:
    table = CallTable(1)
    first = call(table)
    assert table.find(first.slot, first.generation) is None
    table.put(first)
    assert table.find(first.slot, first.generation) is first
    table.end(first)
    assert table.find(first.slot, first.generation) is None
    second = call(table)
    table.put(second)
    assert (second.slot, table.find(first.slot, first.generation)) == (first.slot, None)
    assert table.find(second.slot, second.generation) is second
    assert table.find(1, 1) is None


def test_a_generation_wraps_around_without_leaving_its_field() -> None:
    table = CallTable(1)
    table._generations[0] = 0xFFFFFFFE
    for generation in (0xFFFFFFFF, 0):
        one = call(table)
        assert one.generation == generation
        table.put(one)
        assert len(one.ticket(1)) == RECORD_BYTES
        table.end(one)


def test_a_ticket_says_in_its_fields_what_the_call_is() -> None:
    one = call(CallTable(1), flags=int(TicketFlag.VARYING), attempt=1)
    (ticket,) = np.frombuffer(one.ticket(7), TICKET)
    fields = {name: ticket[name] for name in TICKET.names or () if not name.startswith("reserved")}
    assert fields == {
        "frontend": 7,
        "segment": 3,
        "lane": one.lane.id,
        "rows": 5,
        "shape_key": 2**63 + 1,
        "bytes": 300,
        "priority": 2,
        "flags": 4,
        "attempt": 1,
        "slot": one.slot,
        "generation": one.generation,
        "block": 4,
        "enqueued_ns": 6,
        "deadline_ns": NO_DEADLINE_NS,
    }


def test_the_two_descriptions_of_a_ticket_have_one_size() -> None:
    assert TICKET.itemsize == RECORD_BYTES
    assert np.zeros(1, TICKET).nbytes == len(call(CallTable(1)).ticket(1))
    assert TICKET_STRUCT.startswith("<")


def test_a_probe_is_a_ticket_without_a_block() -> None:
    (probe,) = np.frombuffer(probe_ticket(7, 0xFFFFFFFF, 3, 99), TICKET)
    assert (probe["frontend"], probe["slot"], probe["priority"]) == (7, 0xFFFFFFFF, 3)
    assert (probe["flags"], probe["segment"]) == (TicketFlag.PROBE, NO_SEGMENT)
    assert (probe["enqueued_ns"], probe["deadline_ns"]) == (99, NO_DEADLINE_NS)


@pytest.mark.parametrize(
    ("state", "attempt", "due"),
    [
        (ClaimState.IDLE, 0, Recovery.PUT_BACK),
        (ClaimState.WAITING, 0, Recovery.PUT_BACK),
        (ClaimState.WAITING, 1, Recovery.PUT_BACK),
        (ClaimState.RUNNING, 0, Recovery.PUT_BACK_ALONE),
        (ClaimState.RUNNING, 1, Recovery.POISON),
    ],
)
def test_what_is_due_to_a_ticket_in_a_dead_workers_claims(
    state: ClaimState, attempt: int, due: Recovery
) -> None:
    assert recovery(state, attempt) is due


def test_only_ones_own_tickets_are_found_in_claims_and_no_probes() -> None:
    table = CallTable(3)
    ours, theirs = call(table), call(table)
    tickets = ours.ticket(7) + theirs.ticket(8) + probe_ticket(7, 1, 2, 0)
    assert held_slots(tickets, 7) == [(ours.slot, ours.generation)]
    assert held_slots(tickets, 9) == []
    assert held_slots(b"", 7) == []
