"""Completions of a worker that is broken: they cost the request that they name its answer, and nobody anything else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from predictd.server.transport.records import NO_SEGMENT, Status
from tests.fixtures.frontend import doubled
from tests.fixtures.scripted_workers import FakeWorker, Rig, answered, play, send, settle, start
from tests.fixtures.tickets import Ticket

HUGE = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Forgery:
    """What a completion says beside slot and generation; None is what it should say."""

    first: int = 0
    rows: int | None = None
    segment: int | None = None
    block: int | None = None
    status: int = Status.OK


FORGERIES = {
    "a first row behind the batch": Forgery(first=2),
    "a first row that would wrap": Forgery(first=HUGE),
    "more rows than the batch has": Forgery(rows=5),
    "rows beyond all bounds": Forgery(rows=HUGE),
    "fewer rows than were asked": Forgery(rows=0),
    "a segment that is not there": Forgery(segment=9),
    "no segment": Forgery(segment=NO_SEGMENT),
    "a block behind the last": Forgery(block=HUGE),
    "a block that holds nothing": Forgery(block=40),
    "a status that is none": Forgery(status=4711),
    "an error without a text": Forgery(block=40, status=Status.INVALID_INPUT),
}


def forge(worker: FakeWorker, ticket: Ticket, forgery: Forgery) -> None:
    """Complete one ticket in the block of an answer that the worker holds."""
    segment, block = next(iter(worker.held), (0, 0))
    worker.send(
        ticket.slot,
        ticket.generation,
        forgery.first,
        ticket.rows if forgery.rows is None else forgery.rows,
        segment if forgery.segment is None else forgery.segment,
        block if forgery.block is None else forgery.block,
        2,
        forgery.status,
    )


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_completion_fails_one_request_alone(forgery: Forgery) -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        tasks = [send(rig, number, number) for number in range(3)]
        await settle(rig)
        first, second, third = pool.read()
        worker.answer([first])
        # Its block is still out when the forged one names it, and one answer more is expected of it.
        held = next(iter(worker.held.values()))
        held.answers += forgery.segment is None and forgery.block is None
        forge(worker, second, forgery)
        worker.answer([third])
        await settle(rig)
        assert tasks[0].result().outputs[0].data == doubled(0, 0)
        assert tasks[2].result().outputs[0].data == doubled(2, 2)
        with pytest.raises(Exception, match=r".") as caught:
            await asyncio.wait_for(tasks[1], 10)
        assert not isinstance(caught.value, TimeoutError)

    play(scenario)


@pytest.mark.parametrize(("slot", "generation"), [(HUGE, 1), (1024, 0), (0, HUGE), (4096, HUGE)])
def test_completions_of_requests_that_never_were_are_ignored(slot: int, generation: int) -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = send(rig, 1, 2)
        await settle(rig)
        tickets = pool.read()
        worker.send(slot, generation, 0, 1, 7, HUGE, 1, Status.OK)
        worker.send(slot, generation, 0, 1, NO_SEGMENT, 0, 0, Status.PROBE)
        await settle(rig)
        assert not task.done()
        await answered(rig, worker, tickets, task, 1, 2)

    play(scenario)


def test_claims_on_requests_of_another_pool_put_nothing_back() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        other = rig.add_worker(2, rig.add_pool(2))
        task = send(rig, 1, 2)
        await settle(rig)
        tickets = pool.read()
        other.hold(tickets, running=True)
        other.die()
        await settle(rig)
        assert pool.read() == []
        await answered(rig, worker, tickets, task, 1, 2)

    play(scenario)
