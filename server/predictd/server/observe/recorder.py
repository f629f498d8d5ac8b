"""Counting inside front ends and workers: plain lists of integers, collected by the supervisor as deltas.

Recording stands on the path of each request, so it takes no lock where one thread records, allocates nothing
for a combination it has seen since the last take, and sorts a duration into its bucket with one bisection
over integers: 0.4 µs a request.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import islice
from threading import Lock

from predictd.server.errors import RefusalReason, ShedReason
from predictd.server.observe.buckets import (
    DURATION_BOUNDS_NS,
    DURATION_BUCKETS_SECONDS,
    ROWS_BUCKETS,
    rows_key,
)
from predictd.server.observe.deltas import (
    AcceptedSeries,
    DropReason,
    FrontendDelta,
    NativeWay,
    RequestSeries,
    RetrySeries,
    RunSeries,
    ShedSeries,
    TimeSeries,
    WorkerDelta,
)

__all__ = [
    "DURATION_BUCKETS_SECONDS",
    "ROWS_BUCKETS",
    "DropReason",
    "FrontendRecorder",
    "TimeRecorder",
    "WorkerRecorder",
]

# A delta must fit one message of the control channel, 208 KiB by the kernel's default. A RequestSeries takes
# at most 400 bytes, an entry of RunSeries.batches 19 and the rest of a RunSeries 200.
_SERIES_PER_DELTA_MAX = 256
_BATCHES_PER_DELTA_MAX = 4096

# A cell is one flat list: duration buckets, queue buckets, then these.
_BUCKETS = len(DURATION_BOUNDS_NS) + 1
_QUEUE = _BUCKETS
_REQUESTS = 2 * _BUCKETS
_TOTAL_NS = _REQUESTS + 1
_ROWS = _REQUESTS + 2
_QUEUE_NS = _REQUESTS + 3
_COMPUTE_NS = _REQUESTS + 4
_LAST_UNIX_NS = _REQUESTS + 5
_EMPTY_CELL = [0] * (_REQUESTS + 6)

_RequestKey = tuple[int | None, str, str]


class TimeRecorder:
    """Sorts times into buckets."""

    def __init__(self) -> None:
        self._total_ns = 0
        self._buckets: list[int] = []

    def add(self, duration_ns: int) -> None:
        """Count one."""
        if not self._buckets:
            self._buckets = [0] * _BUCKETS
        self._total_ns += duration_ns
        self._buckets[bisect_left(DURATION_BOUNDS_NS, duration_ns)] += 1

    def take(self) -> TimeSeries:
        """What was counted since the last take."""
        series = TimeSeries(self._total_ns, self._buckets)
        self._total_ns, self._buckets = 0, []
        return series


class FrontendRecorder:
    """Counts the requests of one front end. It belongs to the thread of the front end's event loop.

    Args:
        clock: Wall-clock nanoseconds since the epoch.

    Attributes:
        loop_lag: How late the event loop was.
        gc_pauses: How long garbage collections took.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._cells: dict[_RequestKey, list[int]] = {}
        self._retries: dict[int, list[int]] = {}
        self.loop_lag = TimeRecorder()
        self.gc_pauses = TimeRecorder()
        self._accepted: dict[tuple[int | None, str], int] = {}
        self._shed: dict[tuple[int, ShedReason], int] = {}
        self._refusals: dict[RefusalReason, int] = {}
        self._ways: dict[NativeWay, int] = {}
        self._waits: dict[int, int] = {}
        self._waited: set[int] = set()
        self._more = False

    def accepted(self, lane: int | None, api: str) -> None:
        """Count a request before anything is decided about it; `answered` or `failed` follows, once.

        Args:
            lane: The lane it is meant for; None where the daemon knows no such model.
            api: The protocol, from a fixed set of names.
        """
        key = (lane, api)
        self._accepted[key] = self._accepted.get(key, 0) + 1

    def shed(self, lane: int, reason: ShedReason, requests: int = 1) -> None:
        """Count requests that are refused because there is too much to do, besides counting them as failed."""
        key = (lane, reason)
        self._shed[key] = self._shed.get(key, 0) + requests

    def refused(self, reason: RefusalReason) -> None:
        """Count a call whose caller was not let in. It is no request: nothing else is counted of it."""
        self._refusals[reason] = self._refusals.get(reason, 0) + 1

    def went(self, ways: Mapping[NativeWay, int]) -> None:
        """Count requests by the way that they went through a front end in C."""
        for way, requests in ways.items():
            self._ways[way] = self._ways.get(way, 0) + requests

    def waits(self, lane: int, expected_ns: int) -> None:
        """Tell how long a request of a lane that came now was expected to wait."""
        self._waits[lane] = expected_ns

    # By position: it is called for each request, and keywords cost.
    def answered(
        self, lane: int, api: str, status: str, total_ns: int, queue_ns: int, compute_ns: int, rows: int
    ) -> None:
        """Count a request that a worker completed.

        Args:
            lane: The lane that served it.
            api: The protocol, from a fixed set of names.
            status: The gRPC status code's name: "OK", or the failure that the engine met.
            total_ns: From the arrival of the request to its answer.
            queue_ns: From acceptance to the start of the run.
            compute_ns: The run it took part in.
            rows: Its own rows; 1 for a model that does not batch.
        """
        key = (lane, api, status)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _EMPTY_CELL.copy()
        cell[bisect_left(DURATION_BOUNDS_NS, total_ns)] += 1
        cell[_QUEUE + bisect_left(DURATION_BOUNDS_NS, queue_ns)] += 1
        cell[_REQUESTS] += 1
        cell[_TOTAL_NS] += total_ns
        cell[_ROWS] += rows
        cell[_QUEUE_NS] += queue_ns
        cell[_COMPUTE_NS] += compute_ns
        cell[_LAST_UNIX_NS] = self._clock()

    def failed(self, lane: int | None, api: str, status: str, total_ns: int) -> None:
        """Count a request that no worker completed: refused, expired, cancelled or lost.

        Args:
            lane: The lane it was meant for; None where the daemon knows no such model: the name that a client
                made up is not recorded.
            api: The protocol, from a fixed set of names.
            status: The gRPC status code's name, any but "OK".
            total_ns: From the arrival of the request to its refusal.
        """
        key = (lane, api, status)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _EMPTY_CELL.copy()
        cell[_REQUESTS] += 1
        cell[_TOTAL_NS] += total_ns

    def counted_elsewhere(self, series: RequestSeries) -> None:
        """Add requests that came and ended without being told of one by one."""
        self._accepted[series.lane, series.api] = (
            self._accepted.get((series.lane, series.api), 0) + series.requests
        )
        key = (series.lane, series.api, series.status)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _EMPTY_CELL.copy()
        for at, count in enumerate((*series.duration_buckets, *series.queue_buckets)):
            cell[at] += count
        cell[_REQUESTS] += series.requests
        cell[_TOTAL_NS] += series.total_ns
        cell[_ROWS] += series.rows
        cell[_QUEUE_NS] += series.queue_ns
        cell[_COMPUTE_NS] += series.compute_ns
        cell[_LAST_UNIX_NS] = max(cell[_LAST_UNIX_NS], series.last_unix_ns)

    def retried(self, lane: int) -> None:
        """Count a ticket that was put back because its worker died or lost it."""
        self._retries.setdefault(lane, [0, 0])[0] += 1

    def poisoned(self, lane: int) -> None:
        """Count a request that was given up because it killed its worker while it ran alone."""
        self._retries.setdefault(lane, [0, 0])[1] += 1

    def take(self) -> FrontendDelta:
        """What was counted since the last take, as much as a message carries; the rest stays for the next."""
        if not self._more:
            # Where nobody came any more, nobody waits.
            self._waits = dict.fromkeys(self._waited, 0) | self._waits
            self._waited = {lane for lane, expected_ns in self._waits.items() if expected_ns}
        requests = [
            _request_series(key, self._cells.pop(key))
            for key in list(islice(self._cells, _SERIES_PER_DELTA_MAX))
        ]
        room = _SERIES_PER_DELTA_MAX - len(requests)
        retries = [RetrySeries(lane, *self._retries.pop(lane)) for lane in list(islice(self._retries, room))]
        room -= len(retries)
        accepted = [
            AcceptedSeries(*key, self._accepted.pop(key)) for key in list(islice(self._accepted, room))
        ]
        room -= len(accepted)
        shed = [ShedSeries(*key, self._shed.pop(key)) for key in list(islice(self._shed, room))]
        room -= len(shed)
        waits = {lane: self._waits.pop(lane) for lane in list(islice(self._waits, room))}
        self._more = bool(self._cells or self._retries or self._accepted or self._shed or self._waits)
        refusals, self._refusals = self._refusals, {}
        ways, self._ways = self._ways, {}
        return FrontendDelta(
            requests,
            retries,
            accepted,
            shed,
            waits,
            self._more,
            loop_lag=self.loop_lag.take(),
            gc_pauses=self.gc_pauses.take(),
            refusals=refusals,
            ways=ways,
        )


def _request_series(key: _RequestKey, cell: list[int]) -> RequestSeries:
    lane, api, status = key
    return RequestSeries(
        lane=lane,
        api=api,
        status=status,
        requests=cell[_REQUESTS],
        total_ns=cell[_TOTAL_NS],
        rows=cell[_ROWS],
        queue_ns=cell[_QUEUE_NS],
        compute_ns=cell[_COMPUTE_NS],
        last_unix_ns=cell[_LAST_UNIX_NS],
        duration_buckets=cell[:_QUEUE],
        queue_buckets=cell[_QUEUE:_REQUESTS],
    )


class _RunCell:
    """The runs of one lane since the last take."""

    __slots__ = ("batches", "buckets", "dropped", "rows", "tickets")

    def __init__(self) -> None:
        self.tickets = 0
        self.rows = 0
        self.buckets = [0] * _BUCKETS
        self.batches: dict[int, tuple[int, int]] = {}
        self.dropped: dict[DropReason, int] = {}


class WorkerRecorder:
    """Counts the runs of one worker.

    The run loop records and the control thread takes, hence the lock; it is held once a run, not a request.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._cells: dict[int, _RunCell] = {}
        self._expected: dict[int, dict[int, int]] = {}

    def expects(self, lane: int, expected: dict[int, int] | None) -> None:
        """Tell what runs of a lane are expected to take.

        Args:
            lane: Its id.
            expected: Nanoseconds by rows, which the run loop goes on to change; None when the lane is gone.
        """
        with self._lock:
            if expected is None:
                self._expected.pop(lane, None)
            else:
                self._expected[lane] = expected

    def ran(self, lane: int, rows: int, tickets: int, compute_ns: int) -> None:
        """Count a run of the engine that gave an answer.

        Args:
            lane: The lane whose engine ran.
            rows: Rows of the batch; 1 for a model that does not batch.
            tickets: Requests in the batch.
            compute_ns: How long the engine took.
        """
        key = rows_key(rows)
        with self._lock:
            cell = self._cell(lane)
            cell.tickets += tickets
            cell.rows += rows
            cell.buckets[bisect_left(DURATION_BOUNDS_NS, compute_ns)] += 1
            runs, ns = cell.batches.get(key, (0, 0))
            cell.batches[key] = (runs + 1, ns + compute_ns)

    def dropped(self, lane: int, reason: DropReason, count: int) -> None:
        """Count tickets that were completed without a run, because nobody waits for the answer any more."""
        with self._lock:
            dropped = self._cell(lane).dropped
            dropped[reason] = dropped.get(reason, 0) + count

    def take(self) -> WorkerDelta:
        """What was counted since the last take, as much as a message carries; the rest stays for the next."""
        runs: list[RunSeries] = []
        batches = 0
        with self._lock:
            for lane in list(islice(self._cells, _SERIES_PER_DELTA_MAX)):
                if batches >= _BATCHES_PER_DELTA_MAX:
                    break
                cell = self._cells.pop(lane)
                batches += len(cell.batches)
                expected = dict(self._expected.get(lane, {}))
                runs.append(
                    RunSeries(
                        lane, cell.tickets, cell.rows, cell.buckets, cell.batches, cell.dropped, expected
                    )
                )
            return WorkerDelta(runs, more=bool(self._cells))

    def _cell(self, lane: int) -> _RunCell:
        cell = self._cells.get(lane)
        if cell is None:
            cell = self._cells[lane] = _RunCell()
        return cell
