"""Workers, clients, pools and lanes that go while the loop in C answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import grpc
import grpc.aio
import pytest

from predictd.server.transport.records import Status
from tests.fixtures.frontend import doubled, publication
from tests.native.hot_rig import HotRig, call, infer, play, predict, refusal, started, tickets, until


def test_what_waited_with_a_dead_worker_is_put_back_and_what_ran_runs_alone() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        spare = rig.add_worker(2, pool)
        waited, ran = call(rig, predict(3, 4)), None
        (first,) = await tickets(pool, 1)
        worker.hold([first])
        worker.die()
        again = [ticket for ticket in await tickets(pool, 4) if not ticket.probe]
        assert (rig.mine(again), [(t.attempt, t.alone) for t in again]) == ([False], [(0, False)])
        spare.answer(again)
        assert (await waited).outputs[0].data == doubled(3, 4)

        ran = call(rig, predict(5, 6))
        (second,) = await tickets(pool, 1)
        assert rig.mine([second]) == [True]
        third = rig.add_worker(3, pool)
        spare.hold([second], running=True)
        spare.die()
        again = [ticket for ticket in await tickets(pool, 4) if not ticket.probe]
        assert [(t.attempt, t.alone) for t in again] == [(1, True)]
        fourth = rig.add_worker(4, pool)
        third.hold(again, running=True)
        third.die()
        code, details = await refusal(ran)
        assert code is grpc.StatusCode.INTERNAL
        assert "crashes the engine of model 'm'" in details
        assert fourth.collect_releases() == 0

    play(scenario)


def test_a_ticket_that_died_unclaimed_is_found_by_the_probe() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        spare = rig.add_worker(2, pool)
        waiting = call(rig, predict(3, 4))
        await tickets(pool, 1)  # Read, and not claimed.
        worker.die()
        probes = await tickets(pool, 3)
        assert all(ticket.probe for ticket in probes)
        for probe in probes:
            spare.return_probe(probe)
        found = await tickets(pool, 1)
        spare.answer(found)
        assert (await waiting).outputs[0].data == doubled(3, 4)

    play(scenario)


def test_a_client_that_leaves_takes_no_part_and_its_slot_comes_back() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        waiting.cancel()
        await until(lambda: rig.cancelled(pool, ticket))
        assert rig.dispatcher.in_flight == 1
        worker.fail([ticket], Status.CANCELLED)
        await until(lambda: rig.dispatcher.in_flight == 0)
        rig.hot.collect()
        statuses = {series.status: series.requests for series in rig.recorder.take().requests}
        assert statuses == {"OK": 2, "CANCELLED": 1}

    play(scenario)


def test_a_pool_that_goes_fails_what_waits_and_python_says_so() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        await tickets(pool, 1)
        rig.routes.publish(publication())
        worker.die()
        rig.dispatcher.pool_gone(1, "no worker is left")
        rig.pools.pop(1).close()
        code, details = await refusal(waiting)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == "model 'm' stopped to be served"

    play(scenario)


def test_a_lane_is_retired_once_its_last_request_is_over() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = call(rig, predict(3, 4))
        (ticket,) = await tickets(pool, 1)
        idle = asyncio.Event()
        rig.hot.retire(ticket.lane)
        rig.dispatcher.retirements.when_idle(ticket.lane, idle.set)
        assert not idle.is_set()
        worker.answer([ticket])
        await waiting
        await idle.wait()

    play(scenario)


@pytest.mark.parametrize(
    "requests", [500, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_clients_that_leave_at_any_time_leave_nothing_behind(requests: int) -> None:
    draw = random.Random(requests)

    async def ask(rig: HotRig) -> str:
        waiting = call(rig, draw.choice((predict, infer))(*[1.0] * draw.choice((2, 4, 6))))
        leaves = asyncio.get_running_loop().call_later(draw.random() / 100, waiting.cancel)
        try:
            await waiting
        except asyncio.CancelledError:
            return "left"
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            leaves.cancel()
        return "answered"

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        outcomes: Counter[str] = Counter()

        async def client() -> None:
            while outcomes.total() < requests:
                outcomes[await ask(rig)] += 1

        clients = [asyncio.ensure_future(client()) for _ in range(32)]
        while not all(one.done() for one in clients):
            for ticket in pool.read():
                if rig.cancelled(pool, ticket):
                    worker.fail([ticket], Status.CANCELLED)
                else:
                    worker.answer([ticket])
            worker.collect_releases()
            await asyncio.sleep(0.001)
        await asyncio.gather(*clients)
        # Who resets more than a thousand loses the connection, with all that is on it.
        assert outcomes.pop("UNAVAILABLE", 0) <= 32 * (outcomes["left"] // 1000)
        # Requests of those that left are in flight until their workers say so, and there are 64 at most.
        assert outcomes.pop("RESOURCE_EXHAUSTED", 0) < outcomes["left"] // 10
        assert set(outcomes) == {"left", "answered"}
        # What was sent before its client left comes still.
        while rig.dispatcher.in_flight:
            worker.fail(pool.read(), Status.CANCELLED)
            await asyncio.sleep(0.001)

    play(scenario, bound_seconds=1700 if requests > 1000 else 60)
