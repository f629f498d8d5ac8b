"""Batches that wait for more: until they are full, have a preferred size, or their time is over."""

from __future__ import annotations

import os
import time

import pytest

from predictd.server.transport.records import Status
from tests.unit.worker.harness import running, statuses
from tests.unit.worker.lanes import doubling_lane
from tests.unit.worker.tensors import rows_of

LONG_NS = 10**13


def test_a_lingering_batch_runs_once_it_is_full() -> None:
    lane = doubling_lane(max_batch_size=3, max_delay_ns=LONG_NS)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1))
        assert worker.take() is None
        frontend.ask(
            lane,
            rows_of(2),
        )
        frontend.ask(lane, rows_of(3))
        batch = worker.take()
        assert batch is not None
        assert list(batch.tickets["slot"]) == [0, 1, 2]


def test_a_lingering_batch_runs_when_its_time_is_over() -> None:
    lane = doubling_lane(max_delay_ns=20_000_000)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1))
        batch = worker.intake.next_batch(worker.rules, worker.shares, lambda: True)
        assert batch is not None
        assert time.monotonic_ns() >= int(batch.tickets["enqueued_ns"][0]) + 20_000_000


def test_a_request_with_a_deadline_before_the_end_of_the_linger_is_served_in_time() -> None:
    lane = doubling_lane(max_delay_ns=LONG_NS)
    with running(lane) as worker:
        frontend = worker.frontend()
        deadline_ns = time.monotonic_ns() + 3 * 10**9
        frontend.ask(lane, rows_of(1), deadline_ns=deadline_ns)
        batch = worker.intake.next_batch(worker.rules, worker.shares, lambda: True)
        assert batch is not None
        assert time.monotonic_ns() < deadline_ns


def test_a_batch_larger_than_the_window_grows_while_it_lingers() -> None:
    lane = doubling_lane(max_batch_size=600, max_delay_ns=LONG_NS)
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.request(lane, rows_of(1))
        for count in (300, 200):
            os.write(worker.queues[1].write_fd, bytes(sent.ticket) * count)
            assert worker.take() is None
        os.write(worker.queues[1].write_fd, bytes(sent.ticket) * 200)
        batch = worker.take()
        assert batch is not None
        assert len(batch.tickets) == 600


def test_a_full_window_does_not_linger() -> None:
    """Nothing more could be read, so waiting would only burn time."""
    lane = doubling_lane(max_batch_size=2000, max_delay_ns=LONG_NS)
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.request(lane, rows_of(1))
        for level in (0, 1):
            os.write(worker.queues[level].write_fd, bytes(sent.ticket) * 1024)
        batch = worker.take()
        assert batch is not None
        assert len(batch.tickets) == 1024


def test_work_of_another_lane_ends_the_linger() -> None:
    patient, other = doubling_lane(1, max_delay_ns=LONG_NS), doubling_lane(2)
    with running(patient, other) as worker:
        frontend = worker.frontend()
        frontend.ask(patient, rows_of(1))
        assert worker.take() is None
        frontend.ask(other, rows_of(2))
        assert worker.serve() == 2
        assert len(statuses(frontend)) == 2


# Preferred sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1] * 7, [4, 2, 1]),
        ([1] * 13, [4, 4, 4, 1]),
        ([1, 2, 1, 3], [4, 3]),
        ([3, 3, 3], [6, 3]),
    ],
)
def test_a_batch_has_the_largest_preferred_size_and_the_rest_stays(
    rows: list[int], expected: list[int]
) -> None:
    lane = doubling_lane(max_batch_size=8, preferred_batch_sizes=(2, 4))
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = [frontend.ask(lane, rows_of(at, count)) for at, count in enumerate(rows)]
        worker.serve()
        assert [batch.rows for batch in worker.batches] == expected
        assert statuses(frontend) == {one.slot: Status.OK for one in sent}


def test_what_is_less_than_a_preferred_size_waits_for_it_as_long_as_a_batch_may() -> None:
    lane = doubling_lane(max_batch_size=8, preferred_batch_sizes=(4,), max_delay_ns=20_000_000)
    with running(lane) as worker:
        frontend = worker.frontend()
        began_ns = time.monotonic_ns()
        for at in range(6):
            frontend.ask(lane, rows_of(at), enqueued_ns=began_ns)
        worker.serve()
        assert [batch.rows for batch in worker.batches] == [4, 2]
        assert time.monotonic_ns() >= began_ns + 20_000_000
