"""The core as adapters call it: selection of outputs, time-outs, counting, statistics."""

from __future__ import annotations

import asyncio

import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.control.messages import StatisticsRequest
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
from predictd.server.frontend.inference import DurationSum
from predictd.server.observe.deltas import CountAndTime, LaneStatisticsRow
from tests.fixtures.frontend import request
from tests.unit.frontend.core import Setup, answered, never


def test_an_answer_carries_who_gave_it_and_how_long_it_took() -> None:
    setup = Setup(answered)
    response = asyncio.run(setup.infer(request(1, 2, 3, 4, priority=2), deadline_ns=99))
    assert (response.model, response.version, response.rows, response.batch_rows) == ("m", 1, 2, 8)
    assert (response.queue_ns, response.compute_ns) == (3, 4)
    assert (setup.dispatcher.deadlines, setup.dispatcher.priorities) == ([99], [2])
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
