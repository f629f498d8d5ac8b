"""Collecting what children counted: from those that answer, late, in parts, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from predictd.server.control.messages import (
    Collect,
    FrontendCounts,
    Statistics,
    StatisticsRequest,
    WorkerCounts,
)
from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.deltas import CountAndTime, FrontendDelta, LaneStatisticsRow, WorkerDelta
from predictd.server.observe.recorder import FrontendRecorder
from predictd.server.supervise import counts as counts_module
from predictd.server.supervise.counts import ENTRIES_PER_MESSAGE, ENTRIES_PER_ROW, Counts, parts_of
from tests.fixtures.supervision import FakeChild


class Office:
    """Counts and the children that are asked."""

    def __init__(self, children: int = 2) -> None:
        self.children = [FakeChild(number) for number in range(1, children + 1)]
        self.counts = Counts(Aggregate(), lambda: self.children)  # type: ignore[arg-type, return-value]
        self.counts.aggregate.name_lane(1, "m", 1)

    def last(self, child: FakeChild) -> int:
        return child.got(Collect)[-1].seq

    def answer(self, child: FakeChild, *, seq: int = 0, more: bool = False, in_flight: int = 0) -> None:
        recorder = FrontendRecorder()
        recorder.answered(1, "api", "OK", 1, 1, 1, 1)
        taken = recorder.take()
        delta = FrontendDelta(taken.requests, more=more)
        message = FrontendCounts(seq=seq or self.last(child), delta=delta, in_flight=in_flight, arena_bytes=0)
        self.counts.counted(child, message)  # type: ignore[arg-type]

    def requests(self) -> int:
        return sum(row.success.count for row in self.counts.aggregate.lane_statistics())


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_a_collection_is_over_when_all_have_answered() -> None:
    async def scenario() -> None:
        office = Office()
        task = asyncio.ensure_future(office.counts.collect())
        await asyncio.sleep(0)
        first, second = office.children
        office.answer(first, in_flight=3)
        await asyncio.sleep(0)
        assert not task.done()
        message = WorkerCounts(seq=office.last(second), delta=WorkerDelta(), arena_bytes=0)
        office.counts.counted(second, message)  # type: ignore[arg-type]
        await asyncio.wait_for(task, 10)
        assert (office.requests(), office.counts.in_flight) == (1, {1: 3})

    run(scenario)


def test_who_has_more_is_asked_again_with_the_same_number() -> None:
    async def scenario() -> None:
        office = Office(1)
        task = asyncio.ensure_future(office.counts.collect())
        await asyncio.sleep(0)
        (child,) = office.children
        office.answer(child, more=True)
        office.answer(child, more=True)
        assert len({message.seq for message in child.got(Collect)}) == 1
        assert len(child.got(Collect)) == 3
        office.answer(child)
        await asyncio.wait_for(task, 10)
        assert office.requests() == 3

    run(scenario)


def test_nobody_waits_long_for_one_that_does_not_answer_and_its_late_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counts_module, "ANSWER_SECONDS", 0.01)

    async def scenario() -> None:
        office = Office()
        first, second = office.children
        for _ in range(3):
            await asyncio.wait_for(office.counts.collect(), 10)
        assert office.counts._waiting == {}, "what nobody waits for is forgotten"
        office.answer(first)
        office.answer(second, seq=1)
        assert office.requests() == 2

    run(scenario)


def test_nobody_waits_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "ANSWER_SECONDS", 3600)

    async def scenario() -> None:
        office = Office()
        first, second = office.children
        office.answer(second, seq=99, in_flight=5)
        tasks = [asyncio.ensure_future(office.counts.collect()) for _ in range(2)]
        await asyncio.sleep(0)
        for message in first.got(Collect):
            office.answer(first, seq=message.seq)
        office.counts.forget(second.id)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert office.counts.in_flight == {1: 0}

    run(scenario)


def test_a_collection_without_children_is_over_at_once() -> None:
    async def scenario() -> None:
        await asyncio.wait_for(Office(0).counts.collect(), 10)

    run(scenario)


def test_collections_go_on_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "PERIOD_SECONDS", 0)
    monkeypatch.setattr(counts_module, "ANSWER_SECONDS", 0)

    async def scenario() -> None:
        office = Office(1)
        told: list[int] = []
        task = asyncio.ensure_future(
            office.counts.run(lambda: told.append(len(office.children[0].got(Collect))))
        )
        async with asyncio.timeout(10):
            while len(told) < 3:  # noqa: ASYNC110 - a fake child cannot notify
                await asyncio.sleep(0)
        assert told[:3] == [1, 2, 3]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert office.counts._waiting == {}

    run(scenario)


def test_statistics_are_collected_first_and_sent_to_the_one_who_asked() -> None:
    async def scenario() -> None:
        office = Office(1)
        asker = FakeChild(9)
        task = asyncio.ensure_future(office.counts.answer(asker, StatisticsRequest(seq=7)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert asker.sent == []
        office.answer(office.children[0])
        await asyncio.wait_for(task, 10)
        (answer,) = asker.got(Statistics)
        assert (answer.seq, answer.last) == (7, True)
        assert [(row.model, row.success.count) for row in answer.rows] == [("m", 1)]

    run(scenario)


def row(model: str, batches: int) -> LaneStatisticsRow:
    zero = CountAndTime()
    return LaneStatisticsRow(
        model=model,
        version=1,
        last_inference_ms=0,
        inference_count=0,
        execution_count=0,
        success=zero,
        fail=zero,
        queue=zero,
        compute=zero,
        batches=dict.fromkeys(range(batches), zero),
    )


@pytest.mark.parametrize("number", [0, 1, 399, 400, 401, 5000])
def test_statistics_are_cut_into_parts_of_a_bounded_size_and_at_least_one(number: int) -> None:
    rows = [row(str(at), at % 3) for at in range(number)]
    parts = list(parts_of(rows))
    assert [one for part in parts for one in part] == rows
    assert len(parts) >= 1
    sizes = [sum(ENTRIES_PER_ROW + len(one.batches) for one in part) for part in parts]
    assert max(sizes) <= ENTRIES_PER_MESSAGE
    assert all(size > ENTRIES_PER_MESSAGE * 0.9 for size in sizes[:-1])


def test_a_row_that_is_too_large_by_itself_still_has_a_part() -> None:
    rows = [row("a", 1), row("b", 2 * ENTRIES_PER_MESSAGE), row("c", 1)]
    assert [[one.model for one in part] for part in parts_of(rows)] == [["a"], ["b"], ["c"]]
