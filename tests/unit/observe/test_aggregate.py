from __future__ import annotations

import pytest

from predictd.server.observe.aggregate import Aggregate, RequestKey, Served
from predictd.server.observe.deltas import CountAndTime
from predictd.server.observe.recorder import FrontendRecorder, WorkerRecorder


@pytest.fixture
def aggregate() -> Aggregate:
    made = Aggregate()
    made.name_lane(1, "resnet", 3)
    made.name_lane(2, "bert", 1)
    return made


def requests_of(aggregate: Aggregate) -> dict[tuple[Served | None, str, str], int]:
    return {(key.served, key.api, key.status): totals.requests for key, totals in aggregate.requests()}


def record(aggregate: Aggregate, lane: int, times: int = 1) -> None:
    frontend, worker = FrontendRecorder(), WorkerRecorder()
    for _ in range(times):
        frontend.answered(lane, "kserve", "OK", 30_000, 10_000, 20_000, 2)
        worker.ran(lane, 2, 1, 20_000)
    aggregate.add_frontend(frontend.take(), 1)
    aggregate.add_worker(worker.take())


def test_deltas_of_many_children_add_up(aggregate: Aggregate) -> None:
    record(aggregate, 1, times=2)
    record(aggregate, 1)
    record(aggregate, 2)
    resnet, bert = Served("resnet", 3), Served("bert", 1)
    assert requests_of(aggregate) == {(resnet, "kserve", "OK"): 3, (bert, "kserve", "OK"): 1}
    assert [(served, runs.runs, runs.rows, runs.tickets) for served, runs in aggregate.runs()] == [
        (bert, 1, 2, 1),
        (resnet, 3, 6, 3),
    ]


def test_an_unknown_model_is_counted_without_its_name(aggregate: Aggregate) -> None:
    frontend = FrontendRecorder()
    frontend.failed(None, "kserve", "NOT_FOUND", 1_000)
    aggregate.add_frontend(frontend.take(), 1)
    assert requests_of(aggregate) == {(None, "kserve", "NOT_FOUND"): 1}
    assert [row.fail.count for row in aggregate.lane_statistics()] == [0, 0]


def test_a_new_lane_of_the_same_version_continues_its_totals(aggregate: Aggregate) -> None:
    record(aggregate, 1)
    aggregate.name_lane(3, "resnet", 3)
    record(aggregate, 3)
    aggregate.forget_lane(1)
    record(aggregate, 3)
    assert requests_of(aggregate) == {(Served("resnet", 3), "kserve", "OK"): 3}
    aggregate.forget_lane(3)
    assert requests_of(aggregate) == {}
    assert [served.model for served, _ in aggregate.runs()] == ["bert"]


def test_series_stay_until_the_lane_is_forgotten_and_late_deltas_do_not_bring_them_back(
    aggregate: Aggregate,
) -> None:
    record(aggregate, 1)
    late_frontend, late_worker = FrontendRecorder(), WorkerRecorder()
    late_frontend.failed(1, "kserve", "UNAVAILABLE", 1)
    late_frontend.retried(1)
    late_worker.ran(1, 1, 1, 1)
    assert [row.execution_count for row in aggregate.lane_statistics()] == [0, 1]
    aggregate.forget_lane(1)
    aggregate.add_frontend(late_frontend.take(), 1)
    aggregate.add_worker(late_worker.take())
    assert requests_of(aggregate) == {}
    assert [row.model for row in aggregate.lane_statistics()] == ["bert"]


def test_forgetting_a_lane_that_has_no_name_is_an_error(aggregate: Aggregate) -> None:
    with pytest.raises(KeyError):
        aggregate.forget_lane(9)


def test_retries_poison_and_drops_are_kept_by_model_version(aggregate: Aggregate) -> None:
    frontend, worker = FrontendRecorder(), WorkerRecorder()
    frontend.retried(1)
    frontend.retried(1)
    frontend.poisoned(1)
    worker.dropped(1, "expired", 3)
    worker.dropped(2, "cancelled", 1)
    aggregate.add_frontend(frontend.take(), 1)
    aggregate.add_worker(worker.take())
    totals = dict(aggregate.runs())
    assert (totals[Served("resnet", 3)].retries, totals[Served("resnet", 3)].poison) == (2, 1)
    assert totals[Served("resnet", 3)].dropped == {"expired": 3}
    assert totals[Served("bert", 1)].dropped == {"cancelled": 1}


def test_statistics_have_exact_sums(aggregate: Aggregate) -> None:
    now_ns = iter([1_700_000_000_999_999_999, 1_700_000_005_000_000_000])
    frontend, worker = FrontendRecorder(clock=lambda: next(now_ns)), WorkerRecorder()
    frontend.answered(1, "kserve", "OK", total_ns=100_001, queue_ns=33, compute_ns=50_007, rows=5)
    aggregate.add_frontend(frontend.take(), 1)
    other_api = FrontendRecorder(clock=lambda: 1_600_000_000_000_000_000)
    other_api.answered(1, "predictd", "OK", total_ns=10, queue_ns=2, compute_ns=3, rows=1)
    aggregate.add_frontend(other_api.take(), 1)
    # A run that failed spends time in the engine and is no success.
    frontend.answered(1, "kserve", "INTERNAL", total_ns=7, queue_ns=1, compute_ns=1, rows=9)
    frontend.failed(1, "kserve", "DEADLINE_EXCEEDED", 11)
    aggregate.add_frontend(frontend.take(), 1)
    worker.ran(1, 6, 2, 50_007)
    worker.ran(1, 6, 1, 3)
    worker.ran(1, 1, 1, 5)
    aggregate.add_worker(worker.take())

    idle, row = aggregate.lane_statistics()
    assert (row.model, row.version) == ("resnet", 3)
    assert row.last_inference_ms == 1_700_000_000_999
    assert (row.inference_count, row.execution_count) == (6, 3)
    assert row.success == CountAndTime(2, 100_011)
    assert row.fail == CountAndTime(2, 18)
    assert row.queue == CountAndTime(2, 35)
    assert row.compute == CountAndTime(2, 50_010)
    assert row.batches == {1: CountAndTime(1, 5), 6: CountAndTime(2, 50_010)}
    assert (idle.model, idle.last_inference_ms, idle.success) == ("bert", 0, CountAndTime())


def test_a_late_delta_does_not_turn_back_the_time_of_the_newest_answer(aggregate: Aggregate) -> None:
    early = FrontendRecorder(clock=lambda: 1_000_000_000)
    late = FrontendRecorder(clock=lambda: 2_000_000_000)
    for frontend in (early, late):
        frontend.answered(1, "kserve", "OK", 1, 1, 1, 1)
    aggregate.add_frontend(late.take(), 1)
    aggregate.add_frontend(early.take(), 1)
    assert [row.last_inference_ms for row in aggregate.lane_statistics()] == [0, 2000]


def test_the_order_of_series_does_not_depend_on_who_came_first(aggregate: Aggregate) -> None:
    frontend = FrontendRecorder()
    for lane in (2, 1, None):
        frontend.failed(lane, "predictd", "CANCELLED", 1)
        frontend.failed(lane, "kserve", "CANCELLED", 1)
    aggregate.add_frontend(frontend.take(), 1)
    keys = [key for key, _ in aggregate.requests()]
    assert keys == [
        RequestKey(served, api, "CANCELLED")
        for served in (None, Served("bert", 1), Served("resnet", 3))
        for api in ("kserve", "predictd")
    ]


def test_what_came_and_what_ended_are_the_same_also_after_a_swap_and_a_death(aggregate: Aggregate) -> None:
    def balance() -> tuple[int, int]:
        return sum(aggregate.accepted().values()), sum(requests_of(aggregate).values())

    living, dying = FrontendRecorder(), FrontendRecorder()
    for recorder in (living, dying):
        for lane in (1, 1, 2, None):
            recorder.accepted(lane, "kserve")
    aggregate.add_frontend(living.take(), 1)
    aggregate.add_frontend(dying.take(), 2)
    assert balance() == (8, 0)
    aggregate.name_lane(3, "resnet", 3)
    aggregate.forget_lane(1)
    for recorder, lane in ((living, 1), (living, 1), (living, 2), (living, None), (dying, 1)):
        recorder.failed(lane, "kserve", "CANCELLED", 1_000)
    aggregate.add_frontend(living.take(), 1)
    aggregate.add_frontend(dying.take(), 2)
    assert balance() == (8, 5)
    for frontend in (2, 2, 1):
        aggregate.frontend_gone(frontend)
    assert balance() == (8, 8)
    assert requests_of(aggregate)[Served("resnet", 3), "kserve", "UNAVAILABLE"] == 1
    aggregate.forget_lane(3)
    aggregate.forget_lane(2)
    assert balance() == (2, 2)


def test_waits_are_those_of_the_front_end_where_it_takes_longest_and_end_with_it(
    aggregate: Aggregate,
) -> None:
    frontends = [FrontendRecorder() for _ in range(2)]
    resnet, bert = Served("resnet", 3), Served("bert", 1)
    for number, recorder in enumerate(frontends, 1):
        recorder.waits(1, number * 100)
        aggregate.add_frontend(recorder.take(), number)
    assert aggregate.expected_waits_ns() == {resnet: 200, bert: 0}
    aggregate.frontend_gone(2)
    assert aggregate.expected_waits_ns() == {resnet: 100, bert: 0}
    # Nobody came any more.
    aggregate.add_frontend(frontends[0].take(), 1)
    assert aggregate.expected_waits_ns() == {resnet: 0, bert: 0}
    assert not frontends[0].take().waits_ns
