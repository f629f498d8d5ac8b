"""Completions of a batch say of each ticket what a plain loop over them would say, however the batch was made."""

import os
from itertools import accumulate
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.transport.allocator import Block
from predictd.server.transport.records import COMPLETION, NO_SEGMENT, TICKET, Records, Status, agree, words
from predictd.server.worker.batch import batch_of
from predictd.server.worker.completions import CompletionWriter, Outcome

WORKER, LANE, NOW_NS = 7, 3, 10**9
ALIVE = (1, 2)


@st.composite
def batches(draw: st.DrawFn) -> Records:
    """Tickets of one lane, of three front ends one of which is dead; often alike."""
    count = draw(st.integers(1, 80))
    tickets = np.zeros(count, TICKET)
    tickets["lane"] = LANE
    tickets["slot"] = np.arange(count)
    tickets["generation"] = np.arange(count) * 5 + 1
    for name, values in (("frontend", st.integers(1, 3)), ("rows", st.integers(0, 2**20))):
        several = draw(st.booleans())
        length = count if several else 1
        tickets[name] = draw(st.lists(values, min_size=length, max_size=length))
    waits = st.lists(st.integers(-5, NOW_NS), min_size=count, max_size=count)
    tickets["enqueued_ns"] = NOW_NS - np.array(draw(waits))
    return tickets


def received(tickets: Records, outcome: Outcome, *, batches: bool) -> dict[int, Records]:
    """What each front end that lives reads."""
    pipes = {frontend: os.pipe2(os.O_NONBLOCK) for frontend in ALIVE}
    writer = CompletionWriter(WORKER, {frontend: write_fd for frontend, (_, write_fd) in pipes.items()})
    batch = batch_of(tickets, uniform=agree(tickets, 1, 4))
    writer.answer(batch, writer.parts(batch), outcome, NOW_NS, batches=batches)
    found = {}
    for frontend, (read_fd, write_fd) in pipes.items():
        os.close(write_fd)
        found[frontend] = np.frombuffer(os.read(read_fd, 1 << 16), COMPLETION)
        os.close(read_fd)
    return found


def expected(tickets: Records, outcome: Outcome, *, batches: bool) -> dict[int, list[dict[str, int]]]:
    found: dict[int, list[dict[str, int]]] = {frontend: [] for frontend in ALIVE}
    rows = [int(each) for each in tickets["rows"]]
    firsts = [0, *accumulate(rows)]
    for at, ticket in enumerate(tickets):
        if int(ticket["frontend"]) in found:
            found[int(ticket["frontend"])].append(
                {
                    "slot": int(ticket["slot"]),
                    "generation": int(ticket["generation"]),
                    "first_row": firsts[at] if batches else 0,
                    "rows": rows[at] if batches else 0,
                    "worker": WORKER,
                    "segment": outcome.block.segment if outcome.block else NO_SEGMENT,
                    "block": outcome.block.index if outcome.block else 0,
                    "batch_rows": sum(rows) if batches else 0,
                    "lane": LANE,
                    "queue_ns": max(NOW_NS - int(ticket["enqueued_ns"]), 0),
                    "compute_ns": outcome.compute_ns,
                    "status": int(outcome.status),
                }
            )
    for completions in found.values():
        for each in completions:
            each["answers"] = len(completions)
    return found


def as_dicts(completions: Records) -> list[dict[str, int]]:
    names = [name for name in COMPLETION.names or () if name != "reserved"]
    return [{name: int(each[name]) for name in names} for each in completions]


outcomes: Any = st.sampled_from(
    [Outcome(Status.OK, Block(5, 9, 4096), 12345), Outcome(Status.NO_MEMORY, None, 0)]
)


@given(batches(), outcomes, st.booleans())
def test_each_front_end_is_told_of_its_tickets(tickets: Records, outcome: Outcome, batches: bool) -> None:
    found = received(tickets, outcome, batches=batches)
    told = {frontend: as_dicts(completions) for frontend, completions in found.items()}
    assert told == expected(tickets, outcome, batches=batches)


@given(batches(), st.integers(0, 7), st.integers(1, 8))
def test_records_agree_where_all_their_words_are_the_same(tickets: Records, start: int, count: int) -> None:
    stop = min(start + count, 8)
    part = words(tickets)[:, start:stop]
    assert agree(tickets, start, stop) == bool((part == part[0]).all())
