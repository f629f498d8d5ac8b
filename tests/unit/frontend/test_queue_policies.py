"""Requests that wait: with how many others, for how long, and what becomes of them then."""

from __future__ import annotations

import os
import time

from predictd.server.config.lane import QueueRules
from predictd.server.errors import DeadlineError, OverloadedError
from predictd.server.frontend.routing import Lane
from predictd.server.transport.records import NO_DEADLINE_NS, Status, TicketFlag
from tests.fixtures.fake_worker import FakePool
from tests.fixtures.frontend import doubled, lane
from tests.fixtures.scripted_workers import Pending, Rig, answered, error_of, play, send, sent, settle, start
from tests.fixtures.tickets import Ticket, parse

HOUR_NS = 3600 * 10**9
A_MOMENT_NS = 1_000_000


def policy(**rules: object) -> Lane:
    """A lane with two priorities; the first may have one request waiting, the second is as told."""
    first = QueueRules(max_queue_size=1)
    second = QueueRules(**({"max_queue_size": 2} | rules))  # type: ignore[arg-type]
    return lane(priority_levels=2, queues=(first, second))


def levels(pool: FakePool) -> list[list[Ticket]]:
    """What waits, queue by queue; it is read by that."""
    found: list[list[Ticket]] = []
    for queue in pool.queues:
        try:
            found.append(parse(os.read(queue.read_fd, 65536)))
        except BlockingIOError:
            found.append([])
    return found


async def refused(task: Pending) -> None:
    error = await error_of(task)
    assert type(error) is OverloadedError
    assert str(error) == "the queue of model 'm' is full (max_queue_size)"


def test_each_priority_of_a_lane_has_its_own_limit() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one, other = policy(), lane()
        tasks = [await sent(rig, 1, 2, to=one, priority=p) for p in (1, 2, 2)]
        for priority in (1, 2):
            await refused(await sent(rig, 3, 4, to=one, priority=priority))
        tasks.append(await sent(rig, 1, 2, to=other, priority=1))
        found = levels(pool)
        assert [len(tickets) for tickets in found] == [2, 2, 0]
        worker.answer([*found[0], *found[1]])
        await settle(rig)
        assert [task.result().outputs[0].data for task in tasks] == [doubled(1, 2)] * 4
        # Whoever was answered makes room.
        last = await sent(rig, 5, 6, to=one, priority=1)
        await answered(rig, worker, pool.read(), last, 5, 6)

    play(scenario)


def test_what_a_worker_has_taken_does_not_count_as_waiting() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one = policy()
        first = await sent(rig, 1, 2, to=one, priority=1)
        taken = pool.read()
        await refused(await sent(rig, 3, 4, to=one, priority=1))
        worker.hold(taken, running=True)
        second = await sent(rig, 3, 4, to=one, priority=1)
        await refused(await sent(rig, 5, 6, to=one, priority=1))
        await answered(rig, worker, taken, first, 1, 2)
        worker.claims.clear()
        await answered(rig, worker, pool.read(), second, 3, 4)

    play(scenario)


def test_a_client_that_left_does_not_count_as_waiting() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one = policy()
        gone = await sent(rig, 1, 2, to=one, priority=1)
        gone.cancel()
        await settle(rig)
        second = await sent(rig, 3, 4, to=one, priority=1)
        left, kept = pool.read()
        worker.fail([left], Status.CANCELLED)
        await answered(rig, worker, [kept], second, 3, 4)

    play(scenario)


def test_a_request_that_waited_long_enough_is_refused_while_all_workers_are_busy() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one, now_ns = policy(timeout_ns=A_MOMENT_NS), time.monotonic_ns()
        tasks = [
            send(rig, 1, 2, to=one, priority=2, accepted_ns=now_ns, patience_ns=A_MOMENT_NS) for _ in range(2)
        ]
        for task in tasks:
            error = await error_of(task)
            assert type(error) is DeadlineError
            assert str(error) == "the request to model 'm' waited longer than 1ms in its queue"
        # They count no more, although their tickets are still there.
        third = await sent(rig, 3, 4, to=one, priority=2)
        *late, kept = pool.read()
        assert [ticket.deadline_ns for ticket in late] == [now_ns + A_MOMENT_NS] * 2
        assert [ticket.flags for ticket in late] == [TicketFlag.PATIENCE] * 2
        worker.fail(late, Status.EXPIRED)
        await answered(rig, worker, [kept], third, 3, 4)

    play(scenario)


def test_a_request_that_is_taken_in_time_may_run_as_long_as_it_takes() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(rig, 1, 2, to=policy(), accepted_ns=time.monotonic_ns() + HOUR_NS, patience_ns=1)
        tickets = pool.read()
        worker.hold(tickets, running=True)
        (call,) = rig.dispatcher._calls
        assert call.timer is not None
        rig.dispatcher._waited_enough(call)
        await settle(rig)
        assert not task.done()
        await answered(rig, worker, tickets, task, 1, 2)

    play(scenario)


def test_an_answer_that_is_there_already_counts_more_than_the_time() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(rig, 1, 2, to=policy(), accepted_ns=time.monotonic_ns(), patience_ns=HOUR_NS)
        (call,) = rig.dispatcher._calls
        worker.answer(pool.read())
        rig.dispatcher._waited_enough(call)
        await settle(rig)
        assert task.result().outputs[0].data == doubled(1, 2)

    play(scenario)


def test_the_worker_may_be_the_first_to_notice() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        now_ns = time.monotonic_ns()
        task = await sent(rig, 1, 2, to=policy(), accepted_ns=now_ns, patience_ns=HOUR_NS)
        (ticket,) = pool.read()
        assert ticket.deadline_ns == now_ns + HOUR_NS
        worker.fail([ticket], Status.EXPIRED)
        await settle(rig)
        assert str(await error_of(task)) == ("the request to model 'm' waited longer than 1h in its queue")

    play(scenario)


def test_the_deadline_of_the_request_is_the_limit_where_it_comes_first() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        now_ns = time.monotonic_ns()
        for delay in (False, True):
            one = policy(delay=delay)
            options = {"deadline_ns": now_ns + HOUR_NS, "accepted_ns": now_ns, "patience_ns": 2 * HOUR_NS}
            task = await sent(rig, 1, 2, to=one, priority=2, **options)
            (ticket,) = pool.read()
            assert (ticket.deadline_ns, ticket.flags) == (now_ns + HOUR_NS, 0)
            worker.fail([ticket], Status.EXPIRED)
            await settle(rig)
            assert str(await error_of(task)).startswith(
                "the deadline of the request to model 'm' is too near"
            )

    play(scenario)


def test_a_delayed_request_goes_behind_all_others_and_is_served() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one, now_ns = policy(delay=True), time.monotonic_ns()
        options = {"to": one, "priority": 2, "accepted_ns": now_ns, "patience_ns": A_MOMENT_NS}
        task = await sent(rig, 1, 2, **options)
        dated = await sent(rig, 3, 4, deadline_ns=now_ns + HOUR_NS, **options)
        (_, tickets, _) = levels(pool)
        assert [ticket.deadline_ns for ticket in tickets] == [now_ns + A_MOMENT_NS] * 2
        assert [ticket.flags for ticket in tickets] == [TicketFlag.PATIENCE | TicketFlag.DELAY] * 2
        worker.fail(tickets, Status.EXPIRED)
        await settle(rig)
        assert not task.done()
        (_, _, tickets) = levels(pool)
        assert [ticket.priority for ticket in tickets] == [3, 3]
        assert [ticket.deadline_ns for ticket in tickets] == [NO_DEADLINE_NS, now_ns + HOUR_NS]
        assert [ticket.flags for ticket in tickets] == [0, 0]
        # They wait still, so there is no room for another.
        await refused(await sent(rig, 5, 6, to=one, priority=2))
        worker.fail(tickets[1:], Status.EXPIRED)
        await answered(rig, worker, tickets[:1], task, 1, 2)
        assert str(await error_of(dated)).startswith("the deadline of the request to model 'm' is too near")

    play(scenario)


def test_a_delayed_request_whose_client_left_is_over() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = await sent(
            rig, 1, 2, to=policy(delay=True), priority=2, accepted_ns=time.monotonic_ns(), patience_ns=1
        )
        tickets = pool.read()
        task.cancel()
        await settle(rig)
        worker.fail(tickets, Status.EXPIRED)
        await settle(rig)
        assert levels(pool) == [[], [], []]

    play(scenario)


def test_a_delayed_request_that_is_lost_with_its_worker_is_put_back_where_it_was() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        heir = rig.add_worker(2, pool)
        task = await sent(
            rig, 1, 2, to=policy(delay=True), priority=2, accepted_ns=time.monotonic_ns(), patience_ns=1
        )
        worker.fail(pool.read(), Status.EXPIRED)
        await settle(rig)
        (_, _, tickets) = levels(pool)
        worker.hold(tickets)
        worker.die()
        await settle(rig)
        (first, second, third) = levels(pool)
        (again,) = (ticket for ticket in third if not ticket.probe)
        assert again.priority == 3
        for probe in (*first, *second, *(ticket for ticket in third if ticket.probe)):
            heir.return_probe(probe)
        await answered(rig, heir, [again], task, 1, 2)

    play(scenario)


def test_a_request_whose_worker_died_is_not_refused_for_the_time_that_this_took() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        heir = rig.add_worker(2, pool)
        task = await sent(rig, 1, 2, to=policy(), accepted_ns=time.monotonic_ns(), patience_ns=HOUR_NS)
        worker.hold(pool.read(), running=True)
        worker.die()
        await settle(rig)
        tickets = pool.read()
        (again,) = (ticket for ticket in tickets if not ticket.probe)
        assert again.deadline_ns == NO_DEADLINE_NS
        for ticket in tickets:
            if ticket.probe:
                heir.return_probe(ticket)
        await answered(rig, heir, [again], task, 1, 2)

    play(scenario)
