"""Dead workers: nothing that was accepted is lost, and nothing runs again that kills."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from predictd.server.errors import InferenceError
from predictd.server.frontend.failures import LaneGoneError
from tests.fixtures.frontend import doubled, lane
from tests.fixtures.scripted_workers import (
    Rig,
    answered,
    error_of,
    play,
    returned,
    send,
    sent,
    settle,
    start,
    until_readable,
)


def test_a_request_that_ran_in_a_dead_worker_runs_once_more_alone_and_is_then_poison() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        tasks = [send(rig, 1, 2), send(rig, 3, 4)]
        await settle(rig)
        first.hold(pool.read(), running=True)
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        again = returned(second, pool.read())
        assert [(ticket.alone, ticket.attempt) for ticket in again] == [(True, 1), (True, 1)]
        second.answer(again[:1])
        second.hold(again[1:], running=True)
        second.die()
        await settle(rig)
        assert tasks[0].result().outputs[0].data == doubled(1, 2)
        error = await error_of(tasks[1])
        assert isinstance(error, InferenceError)
        assert str(error) == (
            "the request crashes the engine of model 'm' or takes it longer than run_timeout; it is not tried again"
        )
        (counted,) = rig.recorder.take().retries
        assert (counted.lane, counted.retries, counted.poison) == (11, 2, 1)
        third = rig.add_worker(3, pool)
        assert returned(third, pool.read()) == []

    play(scenario)


def test_a_request_that_only_waited_in_a_dead_worker_goes_back_as_it_was() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        task = await sent(rig, 1, 2)
        (ticket,) = pool.read()
        first.hold([ticket])
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        (again,) = returned(second, pool.read())
        assert again.data == ticket.data
        await answered(rig, second, [again], task, 1, 2)

    play(scenario)


def test_an_answer_that_a_dead_worker_still_wrote_counts() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        task = await sent(rig, 1, 2)
        tickets = pool.read()
        first.hold(tickets, running=True)
        first.answer(tickets)
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        assert task.result().outputs[0].data == doubled(1, 2)
        assert returned(second, pool.read()) == []

    play(scenario)


def test_a_client_that_left_is_not_tried_again() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        task = await sent(rig, 1, 2)
        first.hold(pool.read(), running=True)
        task.cancel()
        await settle(rig)
        first.die()
        assert rig.dispatcher.in_flight == 0
        second = rig.add_worker(2, pool)
        await settle(rig)
        assert returned(second, pool.read()) == []

    play(scenario)


def test_every_priority_gets_a_probe_of_its_own() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        probes = pool.read()
        assert [(probe.probe, probe.priority) for probe in probes] == [(True, 1), (True, 2), (True, 3)]
        assert len({probe.slot for probe in probes}) == 3
        returned(second, probes)
        await settle(rig)
        assert len(rig.dispatcher._probes) == 0

    play(scenario)


@pytest.mark.parametrize("priority", [1, 2, 3])
def test_a_ticket_that_was_read_and_never_claimed_is_found_by_a_probe(priority: int) -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        task = await sent(rig, 1, 2, priority=priority)
        (lost,) = pool.read()
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        probes = pool.read()
        others = [probe for probe in probes if probe.priority != priority]
        assert returned(second, others) == []
        await settle(rig)
        assert pool.read() == [], "only the probe of its own priority can tell"
        returned(second, [probe for probe in probes if probe.priority == priority])
        await settle(rig)
        (again,) = pool.read()
        assert again.data == lost.data
        await answered(rig, second, [again], task, 1, 2)

    play(scenario)


def test_a_ticket_in_the_claims_of_a_living_worker_is_not_lost() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        second = rig.add_worker(2, pool)
        task = await sent(rig, 1, 2)
        tickets = pool.read()
        second.hold(tickets, running=True)
        first.die()
        await settle(rig)
        returned(second, pool.read())
        await settle(rig)
        assert pool.read() == []
        await answered(rig, second, tickets, task, 1, 2)

    play(scenario)


def test_a_ticket_completed_while_the_claims_are_read_is_not_lost() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        second = rig.add_worker(2, pool)
        task = await sent(rig, 1, 2)
        tickets = pool.read()
        second.hold(tickets, running=True)
        first.die()
        await settle(rig)
        returned(second, pool.read())
        rig.dispatcher.on_completions()
        # The probes were seen; before the claims are looked at, the worker completes and clears, in this order.
        second.answer(tickets)
        second.claims.clear()
        await settle(rig)
        assert pool.read() == []
        assert task.result().outputs[0].data == doubled(1, 2)
        assert rig.recorder.take().retries == []

    play(scenario)


def test_a_ticket_that_is_younger_than_the_probe_is_not_lost() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        probes = pool.read()
        task = await sent(rig, 1, 2)
        returned(second, probes)
        await settle(rig)
        (ticket,) = pool.read()
        assert not ticket.probe
        second.answer([ticket])
        await settle(rig)
        assert task.result().batch_rows == 1

    play(scenario)


def test_probes_that_died_with_their_reader_are_forgotten_and_sent_again() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        task = await sent(rig, 1, 2)
        pool.read()
        for number in range(2, 6):
            first.die()
            await settle(rig)
            assert len(pool.read()) == len(rig.dispatcher._probes) == 3, "read, and lost with the next"
            first = rig.add_worker(number, pool)
        first.die()
        last = rig.add_worker(9, pool)
        await settle(rig)
        returned(last, pool.read())
        await settle(rig)
        await answered(rig, last, pool.read(), task, 1, 2)

    play(scenario)


def test_a_worker_that_left_by_itself_lost_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        first.die(dead=False)
        rig.dispatcher.worker_gone(1, dead=True)
        rig.dispatcher.worker_gone(99, dead=True)
        await settle(rig)
        assert pool.read() == []

    play(scenario)


def test_what_is_put_back_waits_while_the_queue_is_full_and_stays_in_order() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        queue = pool.queues[1]
        tasks = [send(rig, n, n) for n in range(3)]
        await settle(rig)
        held = pool.read()
        first.hold(held)
        filler = bytes(64)
        with suppress(BlockingIOError):
            while True:
                os.write(queue.write_fd, filler * 64)
        first.die()
        second = rig.add_worker(2, pool)
        await settle(rig)
        refused = send(rig, 9, 9)
        await settle(rig)
        assert "is full" in str(await error_of(refused))
        with suppress(BlockingIOError):
            while True:
                os.read(queue.read_fd, 65536)
        await until_readable(queue.read_fd)
        again = pool.read()
        assert [ticket.data for ticket in again if not ticket.probe] == [ticket.data for ticket in held]
        assert [ticket.probe for ticket in again if ticket.priority == 2] == [False, False, False, True]
        second.answer(returned(second, again))
        await settle(rig)
        assert [task.result().outputs[0].data for task in tasks] == [doubled(n, n) for n in range(3)]

    play(scenario)


def test_answers_of_a_worker_that_died_since_are_given_even_though_nobody_takes_the_blocks_back() -> None:
    async def scenario(rig: Rig) -> None:
        pool, first = start(rig)
        second = rig.add_worker(2, pool)
        one, two = send(rig, 1, 2), send(rig, 3, 4)
        await settle(rig)
        tickets = pool.read()
        first.answer(tickets[:1])
        second.answer(tickets[1:])
        # Reaped by the supervisor, which closed the pipe; the news is still on its way.
        first.end()
        rig.dispatcher.on_completions()
        assert second.collect_releases() == 0
        await settle(rig)
        assert (one.result().outputs[0].data, two.result().outputs[0].data) == (doubled(1, 2), doubled(3, 4))
        first.die()
        await settle(rig)
        returned(second, pool.read())

    play(scenario)


def test_releases_wait_for_a_worker_that_does_not_read() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        with suppress(BlockingIOError):
            while True:
                os.write(worker.release.write_fd, bytes(4096))
        tasks = []
        for n in range(3):
            tasks.append(await sent(rig, n, n))
            worker.answer(pool.read())
            await settle(rig)
        assert [task.result().outputs[0].data for task in tasks] == [doubled(n, n) for n in range(3)]
        assert len(worker.held) == 3
        link = rig.dispatcher.links.worker(1)
        assert link is not None
        assert link.retry is not None, "one timer, however many wait"
        while os.read(worker.release.read_fd, 65536).count(0) != 65536:
            pass
        with suppress(BlockingIOError):
            os.read(worker.release.read_fd, 65536)
        await until_readable(worker.release.read_fd)
        assert worker.collect_releases() == 0
        assert link.retry is None

    play(scenario)


def test_a_pool_that_is_gone_fails_what_waits_in_it_and_nothing_else() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        other = rig.add_pool(2)
        helper = rig.add_worker(2, other)
        waiting, left, elsewhere = send(rig, 1, 2), send(rig, 3, 4), send(rig, 5, 6, to=lane(pool=2))
        await settle(rig)
        left.cancel()
        await settle(rig)
        worker.die()
        pool.close()
        del rig.pools[1]
        rig.dispatcher.pool_gone(1, "it crashed five times")
        rig.dispatcher.pool_gone(1, "again")
        assert str(await error_of(waiting)) == "model 'm' failed: it crashed five times"
        assert rig.dispatcher.in_flight == 1
        await answered(rig, helper, other.read(), elsewhere, 5, 6)

    play(scenario)


def test_a_request_that_ran_when_its_pool_went_runs_alone_elsewhere_and_kills_one_worker_at_most() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        first = await sent(rig, 1, 2)
        worker.hold(pool.read(), running=True)
        worker.die()
        pool.close()
        del rig.pools[1]
        rig.dispatcher.pool_gone(1, "its files are gone")
        error = await error_of(first)
        assert isinstance(error, LaneGoneError)
        assert error.attempt == 1
        other = rig.add_pool(2)
        helper = rig.add_worker(2, other)
        second = await sent(rig, 1, 2, to=lane(pool=2), attempt=error.attempt)
        (ticket,) = other.read()
        assert (ticket.alone, ticket.attempt) == (True, 1)
        helper.hold([ticket], running=True)
        helper.die()
        assert isinstance(await error_of(second), InferenceError)
        rig.add_worker(3, other)
        returned(rig.workers[3], other.read())

    play(scenario)


def test_a_request_on_its_way_into_a_pool_that_was_just_closed_is_failed_by_the_news_of_it() -> None:
    async def scenario(rig: Rig) -> None:
        pool, _ = start(rig)
        pool.close()
        task = await sent(rig, 1, 2)
        assert not task.done()
        del rig.pools[1]
        rig.dispatcher.pool_gone(1, "its workers are stopped")
        assert str(await error_of(task)) == "model 'm' failed: its workers are stopped"

    play(scenario)
