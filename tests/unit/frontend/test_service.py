"""The core as adapters call it: selection of outputs, time-outs, counting, statistics."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from predictd.engines.api import DType
from predictd.server.config.lane import QueueRules, WireTensor
from predictd.server.control.message import Message
from predictd.server.control.messages import StatisticsRequest
from predictd.server.control.publication import LaneView
from predictd.server.errors import (
    DeadlineError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    UnknownModelError,
)
from predictd.server.frontend import order as order_module
from predictd.server.frontend import service as service_module
from predictd.server.frontend.calls import Answered
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.failures import LaneGoneError
from predictd.server.frontend.inference import DurationSum, InferRequest
from predictd.server.frontend.order import Order
from predictd.server.frontend.routing import Routes
from predictd.server.frontend.service import Service
from predictd.server.frontend.uploads import Uploads
from predictd.server.observe.deltas import CountAndTime, LaneStatisticsRow
from predictd.server.observe.recorder import FrontendRecorder
from tests.fixtures.frontend import SECRET, config, publication, request, signature, view

Calls = Callable[..., Coroutine[Any, Any, Answered]]


class FakeDispatcher:
    """Answers as it is told and remembers what it was asked."""

    def __init__(self, answer: Calls) -> None:
        self._answer = answer
        self.wanted: list[tuple[int, ...]] = []
        self.deadlines: list[int] = []
        self.priorities: list[int] = []
        self.patience_ns: list[int] = []
        self.attempts: list[tuple[int, int]] = []
        self.pools: list[int] = []
        self.moved: list[bool] = []

    async def call(self, order: Order) -> Answered:
        self.attempts.append((order.lane.id, order.attempt))
        self.pools.append(order.lane.pool)
        self.moved.append(order.moved)
        self.wanted.append(order.wanted)
        self.priorities.append(order.queue.level)
        self.patience_ns.append(order.patience_ns)
        self.deadlines.append(order.deadline_ns)
        return await self._answer()


class Setup:
    def __init__(
        self, answer: Calls, draw: Callable[[], float] = random.random, limit: int = 0, **lane: object
    ) -> None:
        self.dispatcher = FakeDispatcher(answer)
        self.recorder = FrontendRecorder()
        self.sent: list[Message] = []
        self.routes = Routes(SECRET, draw)
        outputs = (WireTensor("y", DType.FP32, (-1, 2)), WireTensor("z", DType.FP32, (-1, 2)))
        one = view(signature=signature(outputs=outputs), config=config(11, **lane))
        self.routes.publish(publication(one))
        self.service = Service(
            self.routes,
            self.dispatcher,  # type: ignore[arg-type]
            self.recorder,
            lambda message, _: self.sent.append(message),
            ClientLimit(limit),
            Uploads(),
        )

    def infer(self, one: InferRequest, deadline_ns: int = 0) -> Coroutine[Any, Any, Any]:
        return self.service.infer(one, "api", deadline_ns)

    def counted(self) -> dict[tuple[int | None, str], int]:
        return {(one.lane, one.status): one.requests for one in self.recorder.take().requests}


async def answered() -> Answered:
    return Answered([], 3, 4, 8, 2)


async def never() -> Answered:
    future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
    return await future


def test_an_answer_carries_who_gave_it_and_how_long_it_took() -> None:
    setup = Setup(answered)
    response = asyncio.run(setup.infer(request(1, 2, 3, 4, priority=2), deadline_ns=99))
    assert (response.model, response.version, response.rows, response.batch_rows) == ("m", 1, 2, 8)
    assert (response.queue_ns, response.compute_ns) == (3, 4)
    assert (setup.dispatcher.deadlines, setup.dispatcher.priorities) == ([99], [2])
    assert setup.counted() == {(11, "OK"): 1}


def going(setup: list[Setup], *after: LaneView, **labels: int) -> Calls:
    """The first request finds its lane gone, and the model as it is published afterwards."""

    async def call() -> Answered:
        if len(setup[0].dispatcher.attempts) == 1:
            setup[0].routes.publish(publication(*after, labels=labels))
            raise LaneGoneError("model 'm' failed: its workers are stopped", 1)
        return await answered()

    return call


@pytest.mark.parametrize("label", [None, "stable"])
def test_a_request_whose_version_went_is_answered_by_the_one_that_took_its_place(label: str | None) -> None:
    setups: list[Setup] = []
    setup = Setup(going(setups, view(2), view(1, "UNLOADING"), stable=2))
    setups.append(setup)
    setup.routes.publish(publication(view(1), labels={"stable": 1}))
    response = asyncio.run(setup.infer(request(1, 2, label=label)))
    assert response.version == 2
    assert setup.dispatcher.attempts == [(11, 0), (12, 1)]
    delta = setup.recorder.take()
    # It ends where it began, or neither version's sums would come out even.
    assert [(one.lane, one.status) for one in delta.requests] == [(11, "OK")]
    assert [(one.lane, one.requests) for one in delta.accepted] == [(11, 1)]
    assert [(one.lane, one.retries) for one in delta.retries] == [(12, 1)]


@pytest.mark.parametrize(
    ("version", "after"),
    [(1, view(2)), (None, view(1, "FAILED")), (None, view(1, "UNLOADING"))],
    ids=["it names its version", "nothing took its place", "the model is unloaded"],
)
def test_a_request_is_not_answered_by_a_version_that_it_did_not_mean(
    version: int | None, after: LaneView
) -> None:
    setups: list[Setup] = []
    setup = Setup(going(setups, after))
    setups.append(setup)
    with pytest.raises(ModelUnavailableError, match=r"^model 'm' failed: its workers are stopped$"):
        asyncio.run(setup.infer(request(1, 2, version=version)))
    assert len(setup.dispatcher.attempts) == 1
    assert setup.counted() == {(11, "UNAVAILABLE"): 1}


@pytest.mark.parametrize("version", [None, 1])
@pytest.mark.parametrize(
    ("news", "statuses"),
    [
        ([view(1, "LOADING", pool=2), view(pool=2)], {"OK"}),
        ([view(pool=2)], {"OK"}),
        ([view(1), view(1, "LOADING", pool=2), view(pool=2)], {"OK"}),
        ([view(1, "LOADING", pool=2), view(1, "FAILED", pool=2)], {"UNAVAILABLE"}),
    ],
    ids=["on its way", "there and not published", "published in vain before", "fails"],
)
def test_a_request_waits_for_what_becomes_of_its_lane(
    news: list[LaneView], statuses: set[str], version: int | None
) -> None:
    async def gone_once() -> Answered:
        if len(setup.dispatcher.attempts) > 1:
            return await answered()
        raise LaneGoneError("the version of model 'm' that was to answer is served no more", 1)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(setup.infer(request(1, 2, version=version)))
        for one in news:
            await asyncio.sleep(0)
            assert not waiting.done()
            setup.routes.publish(publication(one))
        await asyncio.gather(waiting, return_exceptions=True)

    setup = Setup(gone_once)
    asyncio.run(scenario())
    assert {status for _, status in setup.counted()} == statuses
    if statuses == {"OK"}:
        assert (setup.dispatcher.pools, setup.dispatcher.moved) == ([1, 2], [False, True])
        assert setup.dispatcher.attempts == [(11, 0), (21, 1)]


def test_a_request_waits_for_its_lane_no_longer_than_it_has_time() -> None:
    async def gone() -> Answered:
        setup.routes.publish(publication(view(1, "LOADING")))
        raise LaneGoneError("gone")

    setup = Setup(gone)
    with pytest.raises(DeadlineError, match=r"^the request's time-out of 1500 µs passed$"):
        asyncio.run(setup.infer(request(1, 2, timeout_ns=1_500_000)))
    assert setup.counted() == {(11, "DEADLINE_EXCEEDED"): 1}


def test_a_split_is_drawn_for_each_request_whoever_asks() -> None:
    points = iter([0.0, 0.99, 0.0, 0.99])
    setup = Setup(answered, lambda: next(points))
    setup.routes.publish(publication(view(2), view(1), split=((1, 90), (2, 10))))
    assert [asyncio.run(setup.infer(request(1, 2))).version for _ in range(2)] == [1, 2]
    assert [setup.service.draw("m", None, None).version for _ in range(2)] == [1, 2]
    # Nothing is left to draw.
    assert setup.service.draw("m", 2, None).version == 2
    assert setup.service.version("m", None, None).version == 1


@pytest.mark.parametrize("version", [None, 1])
def test_a_request_follows_its_lane_through_pools(version: int | None) -> None:
    async def moved_twice() -> Answered:
        moves = len(setup.dispatcher.attempts)
        if moves == 3:
            return await answered()
        setup.routes.publish(publication(view(config=config(11), lane=11, pool=7 + moves)))
        raise LaneGoneError("gone", 1)

    setup = Setup(moved_twice)
    asyncio.run(setup.infer(request(1, 2, version=version)))
    assert setup.dispatcher.pools == [1, 8, 9]
    assert setup.dispatcher.attempts == [(11, 0), (11, 1), (11, 1)]
    assert setup.counted() == {(11, "OK"): 1}


@pytest.mark.parametrize(
    ("names", "wanted"), [((), (0, 1)), (("z",), (1,)), (("z", "y"), (1, 0)), (("y", "z"), (0, 1))]
)
def test_outputs_come_in_the_order_asked_for(names: tuple[str, ...], wanted: tuple[int, ...]) -> None:
    setup = Setup(answered)
    for _ in range(2):
        asyncio.run(setup.infer(request(1, 2, outputs=names)))
    assert setup.dispatcher.wanted == [wanted, wanted]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("q",), "unknown output 'q' of model 'm'; it gives 'y', 'z'"),
        (("y", "y"), "output 'y' of model 'm' is asked for twice"),
    ],
)
def test_outputs_that_cannot_be_had_are_refused_each_time(names: tuple[str, ...], message: str) -> None:
    setup = Setup(answered)
    for _ in range(2):
        with pytest.raises(InvalidRequestError) as caught:
            asyncio.run(setup.infer(request(1, 2, outputs=names)))
        assert str(caught.value) == message
    assert setup.dispatcher.wanted == []
    assert setup.counted() == {(11, "INVALID_ARGUMENT"): 2}


def test_selections_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "_SELECTIONS_KEPT", 2)
    setup = Setup(answered)
    for names in [(), ("y",), ("z",), ("y", "z"), ("z", "y")] * 2:
        asyncio.run(setup.infer(request(1, 2, outputs=names)))
        assert len(setup.service._routes.lane("m", None, None).selections) <= 2
    assert setup.dispatcher.wanted[:5] == setup.dispatcher.wanted[5:] == [(0, 1), (0,), (1,), (0, 1), (1, 0)]


def test_failures_are_counted_by_status_and_an_unknown_model_has_no_label() -> None:
    async def overloaded() -> Answered:
        raise OverloadedError("full")

    setup = Setup(overloaded)
    with pytest.raises(OverloadedError):
        asyncio.run(setup.infer(request(1, 2)))
    with pytest.raises(UnknownModelError):
        asyncio.run(setup.infer(request(1, 2, model="made up")))
    with pytest.raises(InvalidRequestError):
        asyncio.run(setup.infer(request(1, 2, inputs=[])))
    assert setup.counted() == {
        (11, "RESOURCE_EXHAUSTED"): 1,
        (None, "NOT_FOUND"): 1,
        (11, "INVALID_ARGUMENT"): 1,
    }


def test_a_bug_is_counted_and_goes_on_to_the_one_who_hides_it_from_the_client() -> None:
    async def broken() -> Answered:
        raise KeyError("a bug")

    setup = Setup(broken)
    with pytest.raises(KeyError):
        asyncio.run(setup.infer(request(1, 2)))
    assert setup.counted() == {(11, "INTERNAL"): 1}


def test_a_client_that_leaves_is_counted_as_cancelled() -> None:
    setup = Setup(never)

    async def scenario() -> None:
        task = asyncio.ensure_future(setup.infer(request(1, 2)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert setup.counted() == {(11, "CANCELLED"): 1}


def test_a_priority_that_the_model_does_not_have_is_its_default() -> None:
    setup = Setup(answered, priority_levels=2, default_priority=1)
    for priority in (0, 1, 2, 3):
        asyncio.run(setup.infer(request(1, 2, priority=priority)))
    assert setup.dispatcher.priorities == [1, 1, 2, 1]
    assert setup.counted() == {(11, "OK"): 4}


def test_the_wait_is_bounded_by_what_the_model_and_the_request_say() -> None:
    rules = QueueRules(max_queue_size=1, timeout_ns=9_000_000, timeout_override=True)
    setup = Setup(answered, priority_levels=1, default_priority=1, queues=(rules,))
    for asked_ns in (0, 5_000_000, 10_000_000):
        asyncio.run(setup.infer(request(1, 2, timeout_ns=asked_ns)))
    assert setup.dispatcher.patience_ns == [9_000_000, 5_000_000, 9_000_000]


def test_the_time_out_inside_a_request_ends_it_and_cancels_the_call() -> None:
    cancelled: list[bool] = []

    async def noticing() -> Answered:
        try:
            return await never()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    setup = Setup(noticing)
    with pytest.raises(DeadlineError, match=r"^the request's time-out of 1500 µs passed$"):
        asyncio.run(setup.infer(request(1, 2, timeout_ns=1_500_000)))
    assert cancelled == [True]
    assert setup.counted() == {(11, "DEADLINE_EXCEEDED"): 1}


def test_a_request_with_a_long_time_out_is_answered() -> None:
    assert asyncio.run(Setup(answered).infer(request(1, 2, timeout_ns=10**12))).batch_rows == 8


def test_ready_means_told_so_and_not_draining() -> None:
    service = Setup(answered).service
    assert not service.ready
    service.is_ready = True
    assert service.ready
    service.draining = True
    assert not service.ready


def test_the_metadata_is_that_of_the_routes() -> None:
    service = Setup(answered).service
    assert [info.name for info in service.models()] == ["m"]
    assert service.model("m").default_version == service.version("m", None, None).version == 1


def row(model: str) -> LaneStatisticsRow:
    return LaneStatisticsRow(
        model=model,
        version=2,
        last_inference_ms=3,
        inference_count=4,
        execution_count=5,
        success=CountAndTime(6, 7),
        fail=CountAndTime(8, 9),
        queue=CountAndTime(10, 11),
        compute=CountAndTime(12, 13),
        batches={4: CountAndTime(14, 15)},
    )


def test_statistics_come_in_parts_and_to_the_one_who_asked() -> None:
    setup = Setup(answered)

    async def scenario() -> None:
        one = asyncio.ensure_future(setup.service.statistics())
        two = asyncio.ensure_future(setup.service.statistics())
        await asyncio.sleep(0)
        first, second = (m.seq for m in setup.sent if isinstance(m, StatisticsRequest))
        setup.service.on_statistics(second, [row("c")], last=True)
        setup.service.on_statistics(first, [row("a")], last=False)
        setup.service.on_statistics(12345, [row("x")], last=True)
        setup.service.on_statistics(first, [row("b")], last=True)
        assert [found.model for found in await one] == ["a", "b"]
        (found,) = await two
        assert (found.model, found.version, found.last_inference_ms) == ("c", 2, 3)
        assert (found.success, found.fail) == (DurationSum(6, 7), DurationSum(8, 9))
        assert (found.queue, found.compute_infer) == (DurationSum(10, 11), DurationSum(12, 13))
        assert found.batches == {4: DurationSum(14, 15)}
        assert not setup.service._statistics

    asyncio.run(scenario())


def test_statistics_that_do_not_come_are_an_error_and_not_waited_for_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_module, "STATISTICS_TIMEOUT_SECONDS", 0.01)
    setup = Setup(answered)
    with pytest.raises(ModelUnavailableError, match="cannot be had now"):
        asyncio.run(setup.service.statistics())
    assert not setup.service._statistics
    setup.service.on_statistics(1, [row("late")], last=True)
