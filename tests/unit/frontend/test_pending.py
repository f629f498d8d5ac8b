"""Requests whose answers are handed on by whoever reads them, as messages of streams are served."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from predictd.server.errors import InferenceError, InvalidRequestError, ModelUnavailableError, OverloadedError
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.inference import InferRequest, InferResponse
from predictd.server.frontend.pending import Pending
from predictd.server.frontend.routing import Routes
from predictd.server.frontend.service import Service
from predictd.server.frontend.uploads import Uploads
from predictd.server.transport.records import Status
from tests.fixtures.frontend import SECRET, doubled, publication, request, view
from tests.fixtures.scripted_workers import Rig, play, settle, start

API = "predictd.v1"


@dataclass
class FakeReply:
    """Remembers what became of a request."""

    responses: list[InferResponse] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    resumed: list[Coroutine[Any, Any, InferResponse]] = field(default_factory=list)

    def answer(self, response: InferResponse) -> None:
        self.responses.append(response)

    def fail(self, error: Exception) -> None:
        self.errors.append(error)

    def resume(self, response: Coroutine[Any, Any, InferResponse]) -> None:
        self.resumed.append(response)

    @property
    def calls(self) -> int:
        return len(self.responses) + len(self.errors) + len(self.resumed)


class Setup:
    def __init__(self, rig: Rig, limit: int = 0) -> None:
        self.rig = rig
        self.routes = Routes(SECRET)
        self.routes.publish(publication(view()))
        self.service = Service(
            self.routes,
            rig.dispatcher,
            rig.recorder,
            lambda _message, _fds: None,
            ClientLimit(limit),
            Uploads(),
        )

    def begin(self, one: InferRequest, deadline_ns: int = 0) -> tuple[FakeReply, Pending | None]:
        reply = FakeReply()
        return reply, self.service.begin(one, API, deadline_ns, reply)

    def counted(self) -> tuple[int, dict[str, int]]:
        """Requests that came, and how those that ended did."""
        delta = self.rig.recorder.take()
        ended = {one.status: one.requests for one in delta.requests}
        return sum(one.requests for one in delta.accepted), ended


def test_answers_are_handed_on_where_they_are_read() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        pool, worker = start(rig)
        (one, first), (two, second) = setup.begin(request(1, 2)), setup.begin(request(3, 4, 5, 6))
        assert first is not None
        assert second is not None
        await settle(rig)
        worker.answer(pool.read())
        rig.dispatcher.on_completions()
        assert [response.outputs[0].data for response in one.responses] == [doubled(1, 2)]
        assert [response.outputs[0].data for response in two.responses] == [doubled(3, 4, 5, 6)]
        assert (two.responses[0].rows, two.responses[0].batch_rows, two.responses[0].model) == (2, 3, "m")
        assert first.done()
        assert setup.counted() == (2, {"OK": 2})
        first.abandon()
        assert (one.calls, two.calls, setup.counted()) == (1, 1, (0, {}))

    play(scenario)


def test_who_is_abandoned_is_marked_counted_and_told_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        pool, worker = start(rig)
        soon, past = setup.begin(request(1, 2)), setup.begin(request(3, 4), deadline_ns=1)
        await settle(rig)
        tickets = pool.read()
        for _, pending in (soon, past):
            assert pending is not None
            pending.abandon()
        assert all(rig.cancelled(pool, ticket) for ticket in tickets)
        assert setup.counted() == (2, {"CANCELLED": 1, "DEADLINE_EXCEEDED": 1})
        worker.fail(tickets, Status.CANCELLED)
        await settle(rig)
        assert (soon[0].calls, past[0].calls, rig.used_blocks()) == (0, 0, 0)

    play(scenario)


def test_a_failure_is_told_and_counted() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        pool, worker = start(rig)
        reply, _ = setup.begin(request(1, 2))
        await settle(rig)
        worker.fail(pool.read(), Status.ENGINE_FAILED, "the engine is tired")
        rig.dispatcher.on_completions()
        (error,) = reply.errors
        assert isinstance(error, InferenceError)
        assert "tired" in str(error)
        assert setup.counted() == (1, {"INTERNAL": 1})

    play(scenario)


def test_a_queue_without_room_is_told_and_counted() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        pool, worker = start(rig)
        rig.grow()
        count = pool.queues[1].records
        replies = [setup.begin(request(1, 2))[0] for _ in range(count)]
        await settle(rig)
        refused = [error for reply in replies for error in reply.errors]
        assert refused
        assert all(isinstance(error, OverloadedError) for error in refused)
        assert setup.service.pressed
        assert setup.counted() == (count, {"RESOURCE_EXHAUSTED": len(refused)})
        worker.answer(pool.read())
        await settle(rig)
        assert all(reply.calls == 1 for reply in replies)

    play(scenario, queue_records=64, in_flight=4096)


def test_what_has_to_wait_for_memory_is_resumed() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        pool = rig.add_pool()
        worker = rig.add_worker(1, pool)
        reply, pending = setup.begin(request(1, 2))
        assert (pending, setup.counted()) == (None, (0, {}))
        (resumed,) = reply.resumed
        task = asyncio.ensure_future(resumed)
        await settle(rig)
        worker.answer(pool.read())
        await settle(rig)
        assert (await task).outputs[0].data == doubled(1, 2)
        assert setup.counted() == (1, {"OK": 1})

    play(scenario)


@pytest.mark.parametrize("why", ["invalid", "refusing", "limited", "timed"])
def test_what_is_not_sent_at_once_is_resumed_and_counted_once(why: str) -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig, limit=1 if why == "limited" else 0)
        pool, worker = start(rig)
        setup.service.refusing = why == "refusing"
        one = request(1, 2, model="m", outputs=("z",) if why == "invalid" else ())
        one.timeout_ns = 60 * 10**9 if why == "timed" else 0
        reply, pending = setup.begin(one)
        assert (pending, setup.counted()) == (None, (0, {}))
        (resumed,) = reply.resumed
        task = asyncio.ensure_future(resumed)
        await settle(rig)
        if why in ("invalid", "refusing"):
            with pytest.raises(InvalidRequestError if why == "invalid" else ModelUnavailableError):
                await task
            assert setup.counted()[0] == 1
        else:
            worker.answer(pool.read())
            await settle(rig)
            assert (await task).outputs[0].data == doubled(1, 2)
            assert setup.counted() == (1, {"OK": 1})

    play(scenario)


def test_a_request_whose_lane_goes_is_resumed_where_its_model_is_now() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        start(rig)
        reply, _ = setup.begin(request(1, 2))
        await settle(rig)
        other = rig.add_pool(2)
        rig.grow(2)
        worker = rig.add_worker(2, other)
        rig.dispatcher.pool_gone(1, "it is over")
        rig.pools.pop(1).close()
        rig.workers[1].die(dead=False)
        setup.routes.publish(publication(view(pool=2)))
        (resumed,) = reply.resumed
        task = asyncio.ensure_future(resumed)
        await settle(rig)
        worker.answer(other.read())
        await settle(rig)
        assert (await task).outputs[0].data == doubled(1, 2)
        accepted, ended = setup.counted()
        assert (accepted, ended) == (1, {"OK": 1})

    play(scenario)


def test_a_request_whose_lane_goes_for_good_fails_once() -> None:
    async def scenario(rig: Rig) -> None:
        setup = Setup(rig)
        start(rig)
        reply, _ = setup.begin(request(1, 2))
        await settle(rig)
        rig.dispatcher.pool_gone(1, "it is over")
        rig.pools.pop(1).close()
        rig.workers[1].die(dead=False)
        setup.routes.publish(publication(view(state="FAILED")))
        (resumed,) = reply.resumed
        with pytest.raises(ModelUnavailableError, match="it is over"):
            await resumed
        assert setup.counted() == (1, {"UNAVAILABLE": 1})

    play(scenario)
