from __future__ import annotations

import bisect
import itertools
import threading

import msgspec
import pytest

from predictd.server.observe import recorder
from predictd.server.observe.buckets import (
    DURATION_BOUNDS_NS,
    DURATION_BUCKETS_SECONDS,
    EXACT_ROWS_MAX,
    ROWS_BUCKETS,
    rows_key,
)
from predictd.server.observe.deltas import (
    FrontendDelta,
    RequestSeries,
    RetrySeries,
    RunSeries,
    WorkerDelta,
)
from predictd.server.observe.recorder import FrontendRecorder, WorkerRecorder

BUCKETS = len(DURATION_BOUNDS_NS) + 1

# The kernel's default limit of one message on a Unix socket (net.core.wmem_default), less its own overhead.
MESSAGE_BYTES_MAX = 212_992 - 32


def sparse(buckets: list[int]) -> dict[int, int]:
    return {index: count for index, count in enumerate(buckets) if count}


def test_bounds_go_from_10_microseconds_to_a_minute_without_a_gap() -> None:
    assert DURATION_BUCKETS_SECONDS[0] == 10e-6
    assert DURATION_BUCKETS_SECONDS[-1] == 60.0
    steps = [b / a for a, b in itertools.pairwise(DURATION_BOUNDS_NS)]
    assert all(1 < step <= 2 for step in steps)
    assert ROWS_BUCKETS == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@pytest.mark.parametrize(
    ("rows", "key"),
    [(0, 0), (1, 1), (100, 100), (EXACT_ROWS_MAX, 1024), (1025, 2048), (2048, 2048), (2049, 4096)],
)
def test_rows_are_exact_while_small_and_powers_of_two_beyond(rows: int, key: int) -> None:
    assert rows_key(rows) == key


def test_an_answered_request_is_counted_in_full() -> None:
    frontend = FrontendRecorder(clock=lambda: 1_700_000_000_123_456_789)
    frontend.answered(7, "kserve", "OK", total_ns=12_000, queue_ns=3_000, compute_ns=8_000, rows=4)
    frontend.answered(7, "kserve", "OK", total_ns=2_000_000, queue_ns=10_001, compute_ns=1, rows=0)
    (series,) = frontend.take().requests
    assert (series.lane, series.api, series.status) == (7, "kserve", "OK")
    assert (series.requests, series.rows) == (2, 4)
    assert (series.total_ns, series.queue_ns, series.compute_ns) == (2_012_000, 13_001, 8_001)
    assert series.last_unix_ns == 1_700_000_000_123_456_789
    assert len(series.duration_buckets) == len(series.queue_buckets) == BUCKETS
    assert sparse(series.duration_buckets) == {1: 1, DURATION_BOUNDS_NS.index(2_000_000): 1}
    assert sparse(series.queue_buckets) == {0: 1, 1: 1}


@pytest.mark.parametrize("index", range(len(DURATION_BOUNDS_NS)))
def test_a_bound_belongs_to_its_bucket(index: int) -> None:
    frontend = FrontendRecorder()
    bound = DURATION_BOUNDS_NS[index]
    frontend.answered(1, "kserve", "OK", total_ns=bound, queue_ns=bound + 1, compute_ns=0, rows=1)
    (series,) = frontend.take().requests
    assert sparse(series.duration_buckets) == {index: 1}
    assert sparse(series.queue_buckets) == {index + 1: 1}


def test_a_failed_request_has_a_time_and_no_place_in_a_histogram() -> None:
    frontend = FrontendRecorder()
    frontend.failed(None, "kserve", "NOT_FOUND", 5_000)
    (series,) = frontend.take().requests
    assert (series.lane, series.requests, series.total_ns) == (None, 1, 5_000)
    assert (series.rows, series.last_unix_ns) == (0, 0)
    assert not any(series.duration_buckets + series.queue_buckets)


def test_lane_api_and_status_are_told_apart() -> None:
    frontend = FrontendRecorder()
    for lane, api, status in [(1, "a", "OK"), (2, "a", "OK"), (1, "b", "OK"), (1, "a", "INTERNAL")]:
        frontend.answered(lane, api, status, 1, 1, 1, 1)
    assert len(frontend.take().requests) == 4


def test_retries_and_poison_are_counted_by_lane() -> None:
    frontend = FrontendRecorder()
    frontend.retried(3)
    frontend.retried(3)
    frontend.poisoned(3)
    frontend.retried(4)
    assert frontend.take() == FrontendDelta(retries=[RetrySeries(3, 2, 1), RetrySeries(4, 1, 0)])


def test_take_starts_over() -> None:
    frontend, worker = FrontendRecorder(), WorkerRecorder()
    assert not frontend.take()
    assert not worker.take()
    frontend.failed(1, "kserve", "CANCELLED", 1)
    worker.ran(1, 1, 1, 1)
    assert frontend.take()
    assert worker.take()
    assert not frontend.take()
    assert not worker.take()
    frontend.failed(1, "kserve", "CANCELLED", 1)
    assert frontend.take().requests[0].requests == 1


def test_runs_are_counted_with_their_rows_exactly() -> None:
    worker = WorkerRecorder()
    worker.ran(5, rows=8, tickets=3, compute_ns=20_000)
    worker.ran(5, rows=8, tickets=8, compute_ns=30_000)
    worker.ran(5, rows=1500, tickets=1, compute_ns=61_000_000_000)
    worker.dropped(5, "expired", 2)
    worker.dropped(5, "expired", 1)
    worker.dropped(6, "cancelled", 1)
    first, second = worker.take().runs
    assert (first.lane, first.tickets, first.rows) == (5, 12, 1516)
    assert first.batches == {8: (2, 50_000), 2048: (1, 61_000_000_000)}
    assert sparse(first.compute_buckets) == {1: 1, 2: 1, BUCKETS - 1: 1}
    assert first.dropped == {"expired": 3}
    assert (second.lane, second.batches, second.dropped) == (6, {}, {"cancelled": 1})


def test_deltas_survive_the_wire() -> None:
    frontend, worker = FrontendRecorder(), WorkerRecorder()
    frontend.answered(1, "kserve", "OK", 1, 2, 3, 4)
    frontend.failed(None, "predictd", "NOT_FOUND", 5)
    frontend.retried(1)
    worker.ran(1, 2, 3, 4)
    worker.dropped(1, "cancelled", 1)
    for delta in (frontend.take(), worker.take()):
        wire = msgspec.msgpack.encode(delta)
        assert msgspec.msgpack.decode(wire, type=type(delta)) == delta
        assert len(wire) < 400


def test_a_full_delta_fits_one_message_and_the_rest_comes_with_the_next() -> None:
    frontend = FrontendRecorder()
    huge = 2**62
    for lane in range(recorder._SERIES_PER_DELTA_MAX + 10):
        frontend.answered(10**9 + lane, "tensorflow_serving", "RESOURCE_EXHAUSTED", huge, huge, huge, huge)
        frontend._cells[10**9 + lane, "tensorflow_serving", "RESOURCE_EXHAUSTED"][: 2 * BUCKETS] = [10**6] * (
            2 * BUCKETS
        )
        frontend.retried(lane)
    lanes: list[int | None] = []
    retried = 0
    while True:
        delta = frontend.take()
        assert len(msgspec.msgpack.encode(delta)) < MESSAGE_BYTES_MAX
        lanes += [series.lane for series in delta.requests]
        retried += len(delta.retries)
        if not delta.more:
            break
    assert sorted(lanes, key=str) == [10**9 + lane for lane in range(266)]
    assert retried == 266


def test_a_worker_with_ever_different_batches_stays_within_a_message() -> None:
    worker = WorkerRecorder()
    for lane in range(12):
        for rows in range(1, 1200):
            worker.ran(10**9 + lane, rows, 1, 2**62 // 2000)
    for lane in range(300):
        worker.ran(lane, 1, 1, 2**62)
    lanes = 0
    while True:
        delta = worker.take()
        assert len(msgspec.msgpack.encode(delta)) < MESSAGE_BYTES_MAX
        lanes += len(delta.runs)
        if not delta.more:
            break
    assert lanes == 312


def test_the_control_thread_never_takes_half_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = WorkerRecorder()
    recording, record_on = threading.Event(), threading.Event()

    def interrupted(bounds: tuple[int, ...], ns: int) -> int:
        recording.set()
        record_on.wait()
        return bisect.bisect_left(bounds, ns)

    monkeypatch.setattr(recorder, "bisect_left", interrupted)
    taken: list[WorkerDelta] = []
    run_loop = threading.Thread(target=lambda: worker.ran(1, rows=2, tickets=1, compute_ns=5))
    control = threading.Thread(target=lambda: taken.append(worker.take()))
    run_loop.start()
    recording.wait()
    control.start()
    # A take that does not wait for the run to be counted is done well within this time.
    control.join(timeout=0.1)
    assert not taken
    record_on.set()
    run_loop.join()
    control.join()
    assert [(series.rows, sum(series.compute_buckets)) for series in taken[0].runs] == [(2, 1)]


def test_the_message_types_are_what_the_wire_declares() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([[[1, 2, 3, [], {}, {"late": 1}]]]), type=WorkerDelta)
    empty = WorkerDelta([RunSeries(1, 0, 0, [], {}, {})])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(empty), type=WorkerDelta) == empty
    assert RequestSeries.__struct_config__.array_like
