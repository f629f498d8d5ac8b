"""What is refused at once, and that everything that came is counted again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.errors import DeadlineError, OverloadedError
from predictd.server.frontend import expectation
from predictd.server.frontend.calls import Answered
from predictd.server.frontend.clients import ClientLimit, _client, address
from predictd.server.frontend.routing import Lane
from tests.fixtures.frontend import lane, request
from tests.fixtures.scripted_workers import Rig, error_of, play, sent, settle, start
from tests.unit.frontend.core import Setup, never

MS = 10**6


def busy(to: Lane, each_ns: int = 10 * MS) -> Lane:
    """A lane of which is known that each request in its queue costs so much."""
    for level in (1, 2, 3):
        for _ in range(expectation.ENOUGH_SAMPLES):
            to.queues.of(level).expectation.answered(10, 10 * each_ns, each_ns, time.monotonic_ns())
    return to


def test_a_wait_that_would_outlast_the_deadline_is_refused_before_anything_is_copied() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        slow = busy(lane(), each_ns=1000 * MS)
        now_ns = time.monotonic_ns()
        waiting = [await sent(rig, 1, 2, to=slow) for _ in range(3)]
        blocks = rig.used_blocks()
        error = await error_of(await sent(rig, 3, 4, to=slow, deadline_ns=now_ns + 2000 * MS))
        assert isinstance(error, OverloadedError)
        assert error.limit == "expected_wait"
        assert str(error).startswith("an answer of model 'm' is expected in 4750 ms, and the deadline of")
        assert 2.5 < error.retry_after_seconds < 3.5
        assert rig.used_blocks() == blocks
        patient = await sent(rig, 5, 6, to=slow, deadline_ns=now_ns + 3600_000 * MS)
        forever = await sent(rig, 5, 6, to=slow)
        tickets = pool.read()
        assert len(tickets) == 5
        worker.answer(tickets)
        await settle(rig)
        assert all(task.done() and task.exception() is None for task in (*waiting, patient, forever))
        # Nobody is there any more, so nobody is refused.
        alone = await sent(rig, 7, 8, to=slow, deadline_ns=time.monotonic_ns() + 1000 * MS)
        worker.answer(pool.read())
        await settle(rig)
        assert alone.exception() is None

    play(scenario)


def test_what_workers_hold_is_before_one_even_where_another_front_end_sent_it() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        slow = busy(lane(), each_ns=1000 * MS)
        link = rig.dispatcher._pools[1]
        assert link.ahead(2, rig.dispatcher._workers.values()) == 0
        tasks = [await sent(rig, 1, 2, to=slow)]
        (ticket,) = pool.read()
        worker.hold([ticket] * 7, running=True)
        assert link.ahead(2, rig.dispatcher._workers.values()) == 7
        tasks += [await sent(rig, 1, 2, to=slow, priority=priority) for priority in (1, 3)]
        assert link.ahead(1, rig.dispatcher._workers.values()) == 8
        assert link.ahead(3, rig.dispatcher._workers.values()) == 9
        worker.answer([ticket, *pool.read()])
        await settle(rig)
        assert [task.exception() for task in tasks] == [None] * 3
        assert sum(link.out) == 0

    play(scenario, frontends=2)


def test_answers_teach_what_a_wait_costs() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        one = lane()
        known = one.queues.of(2).expectation
        for _ in range(expectation.ENOUGH_SAMPLES):
            await sent(rig, 1, 2, to=one, accepted_ns=time.monotonic_ns())
            assert known.wait_ns(5, time.monotonic_ns()) == 0
            worker.answer(pool.read())
            await settle(rig)
        # The scripted workers say that every request waited a microsecond.
        assert known.wait_ns(5, time.monotonic_ns()) == 5000

    play(scenario)


def test_a_queue_is_bounded_by_bytes_too() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        first = await sent(rig, 1, 2, to=lane())
        (ticket,) = pool.read()
        worker.answer([ticket])
        await settle(rig)
        assert first.exception() is None
        rules = QueueRules(max_queue_size=1024, max_queue_bytes=2 * ticket.size_bytes)
        tight = lane(priority_levels=1, default_priority=1, queues=(rules,))
        waiting = [await sent(rig, 1, 2, to=tight) for _ in range(2)]
        error = await error_of(await sent(rig, 1, 2, to=tight))
        assert isinstance(error, OverloadedError)
        assert (error.limit, str(error)) == (
            "queue_bytes",
            f"the queue of model 'm' has no room for {ticket.size_bytes} bytes (max_queue_bytes)",
        )
        # What a worker has taken waits no more.
        tickets = pool.read()
        worker.hold(tickets[:1], running=True)
        waiting.append(await sent(rig, 1, 2, to=tight))
        worker.answer([*tickets, *pool.read()])
        await settle(rig)
        assert [task.exception() for task in waiting] == [None] * 3
        assert tight.queues.of(1).out_bytes == 0

    play(scenario)


# The service --------------------------------------------------------------------------------------------------


def ends(setup: Setup) -> tuple[int, int]:
    """Requests that came, and requests that ended."""
    delta = setup.recorder.take()
    return sum(one.requests for one in delta.accepted), sum(one.requests for one in delta.requests)


async def full() -> Answered:
    raise OverloadedError("full", limit="queue_size")


async def gone() -> Answered:
    raise asyncio.CancelledError


async def broken() -> Answered:
    raise KeyError("bug")


async def good() -> Answered:
    return Answered([], 3, 4, 8, 2)


@pytest.mark.parametrize(("answer", "shed"), [(full, 1), (gone, 0), (broken, 0), (good, 0)])
def test_what_came_has_ended_once_whatever_became_of_it(answer: Any, shed: int) -> None:
    setup = Setup(answer)
    coroutines: list[Coroutine[Any, Any, Any]] = [
        setup.infer(request(1, 2)),
        setup.infer(request(1, 2, model="?")),
    ]
    for coroutine in coroutines:
        with contextlib.suppress(Exception, asyncio.CancelledError):
            asyncio.run(coroutine)
    delta = setup.recorder.take()
    assert sum(one.requests for one in delta.accepted) == sum(one.requests for one in delta.requests) == 2
    assert sum(one.requests for one in delta.shed) == shed


def test_a_call_that_grpc_cancels_at_its_deadline_has_exceeded_it() -> None:
    setup = Setup(gone)
    for deadline_ns in (time.monotonic_ns() - 1, time.monotonic_ns() + 3600_000 * MS, 0):
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(setup.infer(request(1, 2), deadline_ns))
    assert setup.counted() == {(11, "DEADLINE_EXCEEDED"): 1, (11, "CANCELLED"): 2}


def test_without_a_deadline_of_its_own_a_request_has_the_default() -> None:
    setup = Setup(never, default_deadline_ns=MS)
    with pytest.raises(DeadlineError, match=r"the default deadline of 1ms passed \(default_deadline\)"):
        asyncio.run(setup.infer(request(1, 2)))
    (deadline_ns,) = setup.dispatcher.deadlines
    assert 0 < deadline_ns < time.monotonic_ns()
    answered = Setup(good, default_deadline_ns=MS)
    asyncio.run(answered.infer(request(1, 2), deadline_ns=99))
    assert answered.dispatcher.deadlines == [99]
    assert ends(answered) == (1, 1)


# Clients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:10.0.0.7:41234", "ipv4:10.0.0.7"),
        ("ipv6:%5B::1%5D:41234", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
    ],
)
def test_a_client_is_an_address(peer: str, client: str) -> None:
    assert address(peer) == client


def test_a_client_may_have_so_many_at_once_and_others_as_many() -> None:
    limit = ClientLimit(1)
    _client.set("a")
    with limit.request():
        with pytest.raises(OverloadedError, match="max_concurrent_per_client") as caught, limit.request():
            pass
        assert caught.value.limit == "client_limit"
        _client.set("b")
        with limit.request():
            pass
    _client.set("a")
    with limit.request():
        pass
    assert not limit._in_flight or set(limit._in_flight) == set()
    _client.set("")


def test_without_a_limit_nothing_is_counted() -> None:
    limit = ClientLimit(0)
    with limit.request(), limit.request():
        assert not limit._in_flight
