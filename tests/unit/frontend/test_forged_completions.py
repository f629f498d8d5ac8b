"""Completions of a worker that is broken: they cost the request that they name its answer, and nobody anything else."""

from __future__ import annotations

import asyncio

import pytest

from predictd.server.transport.records import NO_SEGMENT, Status
from tests.fixtures.forgeries import FORGERIES, HUGE, Forgery, forge
from tests.fixtures.frontend import doubled
from tests.fixtures.scripted_workers import Rig, answered, play, send, settle, start


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
