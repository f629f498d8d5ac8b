"""Models that share a pool: one that is flooded leaves room to the others."""

from __future__ import annotations

from predictd.server.errors import OverloadedError
from predictd.server.frontend.routing import Lane, Routes
from tests.fixtures.fake_worker import FakePool, FakeWorker
from tests.fixtures.frontend import SECRET, lane, publication, view
from tests.fixtures.scripted_workers import Pending, Rig, error_of, play, sent, settle, start

LIMIT = 8


def shared(rig: Rig, lanes: int) -> tuple[FakePool, FakeWorker]:
    pool, worker = start(rig)
    rig.dispatcher._pools[1].queues.limit = LIMIT
    rig.dispatcher.links.shared({1: lanes})
    return pool, worker


async def flood(rig: Rig, to: Lane, requests: int = 3 * LIMIT) -> list[Pending]:
    """Ask so often; those that were not refused."""
    asked = [await sent(rig, 1, 2, to=to) for _ in range(requests)]
    for task in asked:
        if task.done():
            error = await error_of(task)
            assert isinstance(error, OverloadedError)
            assert error.limit == "queue_size"
            assert str(error) == "model 'm' has its share of the queue of pool 'pool 1' (max_queue_size)"
    return [task for task in asked if not task.done()]


def test_a_model_that_is_flooded_leaves_room_to_the_others_of_its_pool() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = shared(rig, lanes=3)
        flooded, other, third = lane(), lane(), lane()
        tasks = await flood(rig, flooded)
        assert len(tasks) == LIMIT // 2
        tasks += await flood(rig, other)
        assert len(tasks) == LIMIT // 2 + LIMIT // 4
        tasks += await flood(rig, third, requests=1)
        assert len(tasks) == LIMIT // 2 + LIMIT // 4 + 1
        tickets = pool.read()
        # What runs waits no more.
        worker.hold(tickets[:2], running=True)
        more = await flood(rig, flooded)
        assert len(more) == 1
        worker.answer(tickets + pool.read())
        await settle(rig)
        assert all(task.done() and not task.exception() for task in (*tasks, *more))

    play(scenario)


def test_a_model_that_is_alone_has_the_whole_queue() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = shared(rig, lanes=1)
        tasks = await flood(rig, lane())
        assert len(tasks) == 3 * LIMIT, "the pipe of the test has more room"
        worker.answer(pool.read())
        await settle(rig)

    play(scenario)


def test_the_routes_know_how_many_lanes_a_pool_has() -> None:
    routes = Routes(SECRET)
    routes.publish(publication(view(1), view(2), view(3, "LOADING")))
    routes.publish(publication(view(1, pool=2), name="other"))
    assert routes.lanes_of_pools() == {1: 2, 2: 1}
    routes.publish(publication(view(1)))
    assert routes.lanes_of_pools() == {1: 1, 2: 1}
