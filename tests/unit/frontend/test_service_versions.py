"""Requests whose lane goes, moves to another pool, or is drawn."""

from __future__ import annotations

import asyncio

import pytest

from predictd.server.control.publication import LaneView
from predictd.server.errors import DeadlineError, ModelUnavailableError
from predictd.server.frontend.calls import Answered
from predictd.server.frontend.failures import LaneGoneError
from tests.fixtures.frontend import config, publication, request, view
from tests.unit.frontend.core import Calls, Setup, answered


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
