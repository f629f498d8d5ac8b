"""Requests in flight, against real pipes and arenas and workers that do what the test says."""

from __future__ import annotations

import asyncio
import os

import pytest

from predictd.server.control.memory import GrowthRequest, SegmentAdded, SegmentRetired
from predictd.server.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
)
from predictd.server.frontend.failures import LaneGoneError
from predictd.server.transport.records import NO_DEADLINE_NS, NO_SEGMENT, Status
from tests.fixtures.fake_worker import FRONTEND
from tests.fixtures.frontend import doubled
from tests.fixtures.scripted_workers import Pending, Rig, answered, error_of, play, send, sent, settle, start
from tests.fixtures.tickets import Ticket

# The way there and back ---------------------------------------------------------------------------------------


def test_answers_reach_their_own_callers_out_of_one_batch() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        first, second = send(rig, 1, 2), send(rig, 3, 4, 5, 6)
        await settle(rig)
        tickets = pool.read()
        assert [ticket.rows for ticket in tickets] == [1, 2]
        worker.answer(tickets)
        await settle(rig)
        one, two = first.result(), second.result()
        assert (one.outputs[0].data, two.outputs[0].data) == (doubled(1, 2), doubled(3, 4, 5, 6))
        assert (two.outputs[0].shape, two.outputs[0].name) == ((2, 2), "y")
        assert (one.queue_ns, one.compute_ns, one.batch_rows) == (1000, 2000, 3)
        assert worker.collect_releases() == 0

    play(scenario)


def test_a_ticket_carries_deadline_and_priority() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        tasks = [send(rig, 1, 2, priority=p, deadline_ns=p) for p in (0, 1, 2, 3, 9)]
        await settle(rig)
        by_level = [os.read(queue.read_fd, 65536) for queue in pool.queues]
        assert [len(data) // 64 for data in by_level] == [1, 2, 2]
        for queue, data in zip(pool.queues, by_level, strict=True):
            os.write(queue.write_fd, data)
        tickets = pool.read()
        assert [ticket.priority for ticket in tickets] == [1, 2, 2, 3, 3]
        assert [ticket.deadline_ns for ticket in tickets] == [1, NO_DEADLINE_NS, 2, 3, 9]
        worker.answer(tickets)
        await asyncio.wait_for(settled(rig, tasks), 10)

    async def settled(rig: Rig, tasks: list[Pending]) -> None:
        await settle(rig)
        assert [task.result().outputs[0].data for task in tasks] == [doubled(1, 2)] * 5

    play(scenario)


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        (Status.EXPIRED, "", DeadlineError, "the deadline passed while the request to model 'm' waited"),
        (Status.INVALID_INPUT, "bad x", InvalidRequestError, "model 'm' cannot run on these inputs: bad x"),
        (Status.ENGINE_FAILED, "boom", InferenceError, "model 'm' failed: boom"),
        (Status.ENGINE_FAILED, "", InferenceError, "model 'm' failed: the engine failed"),
        (Status.NO_MEMORY, "", OverloadedError, "no memory for the answer of model 'm': the arena is full"),
        (
            Status.UNKNOWN_LANE,
            "",
            LaneGoneError,
            "the version of model 'm' that was to answer is served no more",
        ),
    ],
)
def test_each_way_to_fail_has_its_error(
    status: Status, text: str, kind: type[RequestError], message: str
) -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        tasks = [send(rig, 1, 2), send(rig, 3, 4)]
        await settle(rig)
        worker.fail(pool.read(), status, text)
        await settle(rig)
        for task in tasks:
            error = await error_of(task)
            assert type(error) is kind
            assert str(error).startswith(message)

    play(scenario)


def test_a_completion_of_a_wrong_generation_is_released_and_otherwise_ignored() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(rig, 1, 2)
        (ticket,) = pool.read()
        wrong = Ticket(
            *(ticket.data, ticket.segment, ticket.lane, ticket.rows, ticket.size_bytes, ticket.priority),
            *(ticket.flags, ticket.attempt, ticket.slot, ticket.generation + 1, ticket.block),
            deadline_ns=ticket.deadline_ns,
        )
        worker.answer([wrong])
        await settle(rig)
        assert not task.done()
        assert worker.collect_releases() == 0
        await answered(rig, worker, [ticket], task, 1, 2)

    play(scenario)


def test_a_second_completion_of_one_ticket_changes_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        first = await sent(rig, 1, 2)
        tickets = pool.read()
        worker.answer(tickets)
        await settle(rig)
        second = await sent(rig, 3, 4)
        worker.fail(tickets, Status.ENGINE_FAILED, "late")
        await settle(rig)
        assert not second.done()
        worker.answer(pool.read())
        await settle(rig)
        assert (first.result().outputs[0].data, second.result().outputs[0].data) == (
            doubled(1, 2),
            doubled(3, 4),
        )

    play(scenario)


def test_a_broken_block_fails_its_own_request_and_no_other_of_the_same_read() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        broken, unknown, strange, good = (send(rig, n, n) for n in range(4))
        await settle(rig)
        tickets = pool.read()
        worker.complete(tickets[:1], Status.OK, b"no response at all".ljust(64), 1)
        one, two = tickets[1:3]
        worker.send(one.slot, one.generation, 0, 1, 99, 0, 1, Status.OK)
        worker.send(two.slot, two.generation, 0, 1, NO_SEGMENT, 0, 1, 200)
        worker.answer(tickets[3:])
        rig.dispatcher.on_completions()
        await asyncio.wait({broken, unknown, strange, good})
        for task, kind in ((broken, ValueError), (unknown, KeyError), (strange, ValueError)):
            assert isinstance(task.exception(), kind)
        assert good.result().outputs[0].data == doubled(3, 3)

    play(scenario)


# Limits -------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_keeps_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        rig.grow()
        room = pool.queues[1].records
        tasks = [send(rig, 1, 2) for _ in range(room + 3)]
        await settle(rig)
        refused = [task for task in tasks if task.done()]
        assert len(refused) >= 3
        for task in refused:
            assert str(await error_of(task)) == "the queue of model 'm' is full (max_queue_size)"
        assert rig.dispatcher.in_flight == len(tasks) - len(refused)
        worker.answer(pool.read())
        await settle(rig)
        assert {t.result().outputs[0].data for t in tasks if t not in refused} == {doubled(1, 2)}

    play(scenario, queue_records=64, in_flight=4096)


def test_more_than_the_limit_in_flight_is_refused() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        tasks = [send(rig, 1, 2) for _ in range(3)]
        await settle(rig)
        assert str(await error_of(tasks[2])) == "2 requests are in flight, which is this front end's limit"
        worker.answer(pool.read())
        await settle(rig)
        assert [task.result().batch_rows for task in tasks[:2]] == [2, 2]

    play(scenario, in_flight=2)


def test_arenas_grow_by_leave_of_the_supervisor() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig, grown=False)
        tasks = [send(rig, n, n) for n in range(600)]
        await settle(rig, 2000)
        requests = [m.size_bytes for m in rig.sent if isinstance(m, GrowthRequest)]
        added = [m for m in rig.sent if isinstance(m, SegmentAdded)]
        assert requests == [m.block_bytes * m.blocks for m in added] == [256 * 1024] * 2
        assert [(m.owner, m.pool, m.segment) for m in added] == [(FRONTEND, 1, 0), (FRONTEND, 1, 1)]
        assert rig.dispatcher.links.arena_bytes == sum(requests)
        worker.answer(pool.read())
        await settle(rig)
        assert [task.result().outputs[0].data for task in tasks] == [doubled(n, n) for n in range(600)]

    play(scenario, in_flight=1000)


def test_growth_that_is_refused_is_an_error_for_the_request_and_not_for_the_next() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig, grown=False)
        assert str(await error_of(send(rig, 1, 2))) == "too much already"
        rig._refusal = None
        task = await sent(rig, 1, 2)
        worker.answer(pool.read())
        await settle(rig)
        assert task.result().batch_rows == 1

    play(scenario, refusal="too much already")


def test_an_arena_at_its_own_limit_does_not_ask() -> None:
    async def scenario(rig: Rig) -> None:
        start(rig, grown=False)
        assert "no request memory is left" in str(await error_of(send(rig, 1, 2)))
        assert rig.sent == []

    play(scenario, arena_limit_bytes=100)


def test_the_answer_to_a_client_that_left_is_not_taken_for_that_to_the_next() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig, grown=False)
        # The next one asks for less, which there may be room for.
        left, next_one = send(rig, *[3.0] * 32), send(rig, 1, 2)
        await settle(rig)
        left.cancel()
        await settle(rig)
        assert len(rig.sent) == 1, "one growth at a time"
        rig.growth.granted("no room for the first")
        await settle(rig)
        assert len(rig.sent) == 2
        assert not next_one.done()
        rig.growth.granted(None)
        await settle(rig)
        added = rig.sent[2]
        assert isinstance(added, SegmentAdded)
        assert not next_one.done(), "the workers have not mapped it yet"
        rig.growth.usable(added.pool, added.segment)
        await settle(rig)
        await answered(rig, worker, pool.read(), next_one, 1, 2)

    play(scenario, answers=False)


def test_memory_that_comes_after_its_client_left_is_used_by_the_next() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig, grown=False)
        left = await sent(rig, 1, 2)
        rig.growth.granted(None)
        await settle(rig)
        left.cancel()
        await settle(rig)
        next_one = await sent(rig, 3, 4)
        rig.growth.usable(1, 0)
        await settle(rig)
        assert [type(message) for message in rig.sent] == [GrowthRequest, SegmentAdded]
        await answered(rig, worker, pool.read(), next_one, 3, 4)
        rig.growth.granted("late")
        rig.growth.usable(1, 77)

    play(scenario, answers=False)


def test_a_pool_that_goes_while_its_arena_grows_fails_the_request() -> None:
    async def scenario(rig: Rig) -> None:
        pool, _ = start(rig, grown=False)
        task = await sent(rig, 1, 2)
        rig.dispatcher.pool_gone(1, "crash loop")
        rig.pools.pop(1).close()
        assert pool.number == 1
        rig.growth.granted(None)
        await settle(rig)
        rig.growth.usable(1, 0)
        await settle(rig)
        assert isinstance(await error_of(task), ModelUnavailableError)

    play(scenario, answers=False)


# Cancellation -------------------------------------------------------------------------------------------------


def test_a_cancelled_request_is_marked_and_its_block_is_free_only_with_its_completion() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(rig, 1, 2)
        (ticket,) = pool.read()
        assert not rig.cancelled(pool, ticket)
        task.cancel()
        await settle(rig)
        assert task.cancelled()
        assert rig.cancelled(pool, ticket)
        assert (rig.dispatcher.in_flight, rig.used_blocks()) == (1, 1)
        worker.fail([ticket], Status.CANCELLED)
        await settle(rig)
        assert (rig.dispatcher.in_flight, rig.used_blocks()) == (0, 0)
        again = await sent(rig, 3, 4)
        (fresh,) = pool.read()
        assert (fresh.block, rig.cancelled(pool, fresh)) == (ticket.block, False)
        await answered(rig, worker, [fresh], again, 3, 4)

    play(scenario)


def test_an_answer_and_a_cancellation_in_one_turn_leave_nothing_behind() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(rig, 1, 2)
        worker.answer(pool.read())
        rig.dispatcher.on_completions()
        task.cancel()
        await settle(rig)
        assert task.cancelled()

    play(scenario)


def test_a_request_cancelled_before_its_ticket_left_is_accounted_for() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = send(rig, 1, 2)
        await asyncio.sleep(0)
        task.cancel()
        await settle(rig)
        tickets = pool.read()
        assert all(rig.cancelled(pool, ticket) for ticket in tickets)
        worker.fail(tickets, Status.CANCELLED)

    play(scenario)


# Memory that comes back ---------------------------------------------------------------------------------------


def test_memory_under_pressure_is_given_back_but_for_what_is_in_flight() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        held = send(rig, 1, 2)
        await settle(rig)
        tickets = pool.read()
        rig.dispatcher.links.give_back(pressed=True)
        assert not [one for one in rig.sent if isinstance(one, SegmentRetired)]
        await answered(rig, worker, tickets, held, 1, 2)
        # What was in use since the last look counts as needed: only then it is forgotten.
        arena = rig.dispatcher._pools[pool.number].arena
        arena._allocator.forget_peaks()
        rig.dispatcher.links.give_back(pressed=True)
        (retired,) = [one for one in rig.sent if isinstance(one, SegmentRetired)]
        assert (retired.owner, retired.pool) == (FRONTEND, pool.number)
        assert rig.dispatcher.links.arena_bytes == 0
        again = send(rig, 3, 4)
        await settle(rig)
        (ticket,) = pool.read()
        assert ticket.segment != retired.segment
        await answered(rig, worker, [ticket], again, 3, 4)

    play(scenario)
