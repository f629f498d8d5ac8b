"""What the leader takes, drops, leaves and puts back."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from predictd.server.transport.claims import CLAIMS_CAPACITY, read_claims
from predictd.server.transport.pipes import capacity, depth, make_pipe
from predictd.server.transport.records import NO_SEGMENT, Status, TicketFlag
from tests.unit.worker.harness import running, statuses
from tests.unit.worker.lanes import doubling_lane, engine_of
from tests.unit.worker.tensors import rows_of

# Drops --------------------------------------------------------------------------------------------------------


def test_expired_cancelled_and_unknown_tickets_are_answered_without_a_run() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        late = frontend.ask(lane, rows_of(1), deadline_ns=time.monotonic_ns())
        given_up = frontend.ask(lane, rows_of(2))
        frontend.cancel(given_up)
        strange = frontend.ask(lane, rows_of(3), lane_id=99)
        good = frontend.ask(lane, rows_of(4))
        assert worker.serve() == 1
        completions = {int(one["slot"]): one for one in frontend.completions()}
        assert {slot: Status(one["status"]) for slot, one in completions.items()} == {
            late.slot: Status.EXPIRED,
            given_up.slot: Status.CANCELLED,
            strange.slot: Status.UNKNOWN_LANE,
            good.slot: Status.OK,
        }
        assert all(completions[one.slot]["segment"] == NO_SEGMENT for one in (late, given_up, strange))
        assert completions[strange.slot]["lane"] == 99
        assert [len(batch.tickets) for batch in worker.batches] == [1]


def test_a_request_cancelled_after_it_was_claimed_is_run_and_answered() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.ask(lane, rows_of(1))
        batch = worker.take()
        assert batch is not None
        frontend.cancel(sent)
        worker.runner.run(lane, batch)
        assert statuses(frontend) == {sent.slot: Status.OK}


def test_nothing_but_what_can_never_run_leaves_nothing_to_run() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1), deadline_ns=1)
        frontend.ask(lane, rows_of(2), lane_id=99)
        assert worker.take() is None
        assert worker.waiting == 0
        assert statuses(frontend) == {0: Status.EXPIRED, 1: Status.UNKNOWN_LANE}


def test_tickets_of_a_front_end_that_died_vanish() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        living, dead = worker.frontend(1), worker.frontend(2)
        dead.ask(lane, rows_of(1))
        dead.probe(3)
        living.ask(lane, rows_of(2))
        worker.memory.detach(2)
        worker.serve()
        assert statuses(living) == {0: Status.OK}
        assert depth(dead.pipe.read_fd) == 0


# Batches, leftovers, order ------------------------------------------------------------------------------------


def test_leftovers_go_into_the_carry_and_keep_their_order() -> None:
    one, other = doubling_lane(1, max_batch_size=2), doubling_lane(2, max_batch_size=2)
    with running(one, other) as worker:
        frontend = worker.frontend()
        asked = [
            frontend.ask(lane, rows_of(at)) for at, lane in enumerate([one, one, one, other, one, other])
        ]
        batch = worker.take()
        assert batch is not None
        assert list(batch.tickets["slot"]) == [0, 1]
        assert depth(worker.carry.read_fd) == 4
        assert worker.queues[1].depth() == 0
        worker.runner.run(one, batch)
        worker.serve()
        assert depth(worker.carry.read_fd) == 0
        for lane in (1, 2):
            served = [list(b.tickets["slot"]) for b in worker.batches if b.tickets["lane"][0] == lane]
            order = [slot for slots in served for slot in slots]
            assert order == sorted(order)
        answers = {answer.slot: answer.outputs[0] for answer in frontend.answers()}
        assert set(answers) == {sent.slot for sent in asked}
        for at in range(6):
            np.testing.assert_array_equal(answers[at], 2 * rows_of(at))


def test_higher_priorities_are_served_first() -> None:
    lane = doubling_lane(max_batch_size=1)
    with running(lane) as worker:
        frontend = worker.frontend()
        for level in (3, 2, 1, 3, 1):
            frontend.ask(lane, rows_of(level), priority=level)
        worker.serve()
        assert [int(batch.tickets["priority"][0]) for batch in worker.batches] == [1, 1, 2, 3, 3]


def test_a_ticket_to_run_alone_runs_alone() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        for flags in (0, 0, int(TicketFlag.ALONE), 0):
            frontend.ask(lane, rows_of(1), flags=flags)
        worker.serve()
        assert [list(batch.tickets["slot"]) for batch in worker.batches] == [[0, 1], [2], [3]]


def test_a_pool_of_one_lane_reads_no_more_than_a_batch() -> None:
    """What stays in the queue is there for the other workers, and need not be written again."""
    lane = doubling_lane(max_batch_size=4)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(10):
            frontend.ask(lane, rows_of(at))
        batch = worker.take()
        assert batch is not None
        assert (len(batch.tickets), worker.queues[1].depth(), depth(worker.carry.read_fd)) == (4, 6, 0)


def test_leftovers_of_the_largest_batch_fit_into_the_carry() -> None:
    """Thousands of tickets that share nothing: all but the first have to be put back."""
    lane = doubling_lane(max_batch_size=CLAIMS_CAPACITY)
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.request(lane, rows_of(1))
        ticket = bytearray(sent.ticket)
        for level, queue in enumerate(worker.queues):
            for at in range(queue.records):
                ticket[16:24] = (level * 10_000 + at).to_bytes(8, "little")
                os.write(queue.write_fd, ticket)
        waiting = worker.waiting
        assert waiting > capacity(worker.carry.read_fd)
        for taken in range(1, 4):
            batch = worker.take()
            assert batch is not None
            assert len(batch.tickets) == 1
            worker.claims.clear()
            assert worker.waiting == waiting - taken


def test_a_carry_that_the_kernel_made_small_is_never_overfilled() -> None:
    lane = doubling_lane(max_batch_size=1000)
    carry = make_pipe()
    with running(lane, carry=carry) as worker:
        worker.intake._room = 64
        frontend = worker.frontend()
        for at in range(200):
            frontend.ask(lane, rows_of(at), shape_key=at % 50)
        deepest = 0
        while worker.waiting:
            worker.step()
            deepest = max(deepest, depth(carry.read_fd))
        assert 0 < deepest <= 64
        assert len(statuses(frontend)) == 200


def test_the_room_of_the_carry_is_what_the_kernel_granted() -> None:
    with running(doubling_lane()) as worker:
        assert worker.intake._room == capacity(worker.carry.write_fd) == 1024
    with running(doubling_lane(), carry=make_pipe(CLAIMS_CAPACITY * 2)) as worker:
        assert worker.intake._room == CLAIMS_CAPACITY


def test_stopping_puts_back_what_is_in_hand() -> None:
    lane = doubling_lane(max_delay_ns=10**12)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1))
        frontend.ask(lane, rows_of(2))
        assert worker.take() is None
        assert depth(worker.carry.read_fd) == 2
        assert read_claims(worker.claims._map)[1] == b""


# Probes -------------------------------------------------------------------------------------------------------


def test_a_probe_comes_back_at_once_where_nothing_is_older() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.probe(42)
        assert worker.take() is None
        (answer,) = frontend.answers()
        assert (answer.slot, answer.status) == (42, Status.PROBE)


def test_when_a_probe_is_back_what_was_older_stands_in_the_claims() -> None:
    lane = doubling_lane(max_batch_size=2)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(3):
            frontend.ask(lane, rows_of(at))
        frontend.probe(7)
        frontend.ask(lane, rows_of(3))
        first = worker.take()
        assert first is not None
        assert frontend.pipe.depth() == 0
        worker.runner.run(lane, first)
        assert set(statuses(frontend)) == {0, 1}
        second = worker.take()
        assert second is not None
        (probe,) = frontend.answers()
        assert (probe.slot, probe.status) == (7, Status.PROBE)
        held = read_claims(worker.claims._map)[1]
        assert held == second.tickets.tobytes()
        assert 2 in second.tickets["slot"]


def test_a_probe_waits_for_its_own_sender_and_level_alone() -> None:
    lane = doubling_lane(max_batch_size=1)
    with running(lane, doubling_lane(2)) as worker:
        one, other = worker.frontend(1), worker.frontend(2)
        for frontend in (one, one, other):
            frontend.ask(lane, rows_of(1))
        other.probe(8, level=3)
        assert worker.take() is not None
        assert [(answer.slot, answer.status) for answer in other.answers()] == [(8, Status.PROBE)]


# Turns --------------------------------------------------------------------------------------------------------


def test_lanes_of_a_pool_take_turns_by_compute_time() -> None:
    lanes = [doubling_lane(number, max_batch_size=1) for number in (1, 2)]
    with running(*lanes) as worker:
        frontend = worker.frontend()
        for lane in lanes:
            for at in range(4):
                frontend.ask(lane, rows_of(at))
        order = []
        while worker.waiting:
            batch = worker.take()
            assert batch is not None
            lane = worker.lanes[int(batch.tickets["lane"][0])]
            worker.runner.run(lane, batch)
            worker.shares.charge(lane.config.lane, 100)
            order.append(lane.config.lane)
        assert order == [1, 2] * 4
        assert len(engine_of(lanes[0]).runs) == len(engine_of(lanes[1]).runs) == 4


def test_a_ticket_is_refused_when_the_queue_is_full_and_taken_when_there_is_room() -> None:
    lane = doubling_lane(max_batch_size=64)
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.request(lane, rows_of(1))
        for _ in range(worker.queues[1].records):
            frontend.send(sent)
        with pytest.raises(BlockingIOError):
            frontend.send(sent)
        assert worker.take() is not None
        frontend.send(sent)


# Sharing ------------------------------------------------------------------------------------------------------


def test_a_model_that_shares_a_pool_does_not_wait_for_the_queue_of_another() -> None:
    """However many requests the other one has before it, and go on coming: one run of it, and one that had begun."""
    flooded, seldom = doubling_lane(1, max_batch_size=4), doubling_lane(2, max_batch_size=4)
    with running(flooded, seldom) as worker:
        frontend = worker.frontend()
        for number in range(600):
            frontend.ask(flooded, rows_of(number))
        assert worker.step()
        for _ in range(3):
            asked = frontend.ask(seldom, rows_of(0))
            for number in range(8):
                frontend.ask(flooded, rows_of(number))
            before = len(worker.batches)
            while not any(asked.slot in batch.tickets["slot"] for batch in worker.batches[before:]):
                assert len(worker.batches) < before + 2
                assert worker.step()
        worker.serve()
