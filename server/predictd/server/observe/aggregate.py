"""The totals of the whole daemon, in the supervisor: the sum of all deltas of all children, dead or alive.

Totals belong to a model version, not to a lane: where a lane replaces another one of the same version, its
counters go on, for a counter that falls reads as a restart in Prometheus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from predictd.server.errors import RefusalReason, ShedReason
from predictd.server.observe.buckets import DURATION_BOUNDS_NS
from predictd.server.observe.deltas import (
    SUCCESS,
    CountAndTime,
    DropReason,
    FrontendDelta,
    LaneStatisticsRow,
    NativeWay,
    RequestSeries,
    RunSeries,
    TimeSeries,
    WaitingSeries,
    WorkerDelta,
)

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
# The status of requests whose front end died: what gRPC tells a client whose connection breaks.
LOST = "UNAVAILABLE"
# Lanes that were replaced: children tell what they did for them within seconds.
_FORMER_LANES_KEPT = 1024


class Served(NamedTuple):
    """A model version, as a key and as label values."""

    model: str
    version: int


class RequestKey(NamedTuple):
    """What requests are told apart by. `served` is None for models that the daemon does not know."""

    served: Served | None
    api: str
    status: str


def _no_buckets() -> list[int]:
    return [0] * (len(DURATION_BOUNDS_NS) + 1)


def _add(totals: list[int], counts: list[int]) -> None:
    for index, count in enumerate(counts):
        totals[index] += count


@dataclass(slots=True)
class RequestTotals:
    """The sum of RequestSeries; the attributes are explained there."""

    requests: int = 0
    total_ns: int = 0
    rows: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_unix_ns: int = 0
    duration_buckets: list[int] = field(default_factory=_no_buckets)
    queue_buckets: list[int] = field(default_factory=_no_buckets)

    def add(self, series: RequestSeries) -> None:
        """Add what one front end counted."""
        self.requests += series.requests
        self.total_ns += series.total_ns
        self.rows += series.rows
        self.queue_ns += series.queue_ns
        self.compute_ns += series.compute_ns
        self.last_unix_ns = max(self.last_unix_ns, series.last_unix_ns)
        _add(self.duration_buckets, series.duration_buckets)
        _add(self.queue_buckets, series.queue_buckets)


@dataclass(slots=True)
class RunTotals:
    """The sum of RunSeries, RetrySeries and ShedSeries; the attributes are explained there."""

    tickets: int = 0
    rows: int = 0
    compute_buckets: list[int] = field(default_factory=_no_buckets)
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)
    dropped: dict[DropReason, int] = field(default_factory=dict)
    retries: int = 0
    poison: int = 0
    shed: dict[ShedReason, int] = field(default_factory=dict)
    expected_ns: dict[int, int] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Runs of the engine."""
        return sum(self.compute_buckets)

    @property
    def compute_ns(self) -> int:
        """What they took."""
        return sum(ns for _, ns in self.batches.values())

    def add(self, series: RunSeries) -> None:
        """Add what one worker counted."""
        self.tickets += series.tickets
        self.rows += series.rows
        _add(self.compute_buckets, series.compute_buckets)
        for key, (runs, ns) in series.batches.items():
            runs_before, ns_before = self.batches.get(key, (0, 0))
            self.batches[key] = (runs_before + runs, ns_before + ns)
        for reason, count in series.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.expected_ns.update(series.expected_ns)


@dataclass(slots=True)
class Waiting:
    """Requests of a model version that no worker has taken.

    Attributes:
        requests: By priority.
        oldest_ns: How long the oldest has waited.
    """

    requests: Counter[int] = field(default_factory=Counter)
    oldest_ns: int = 0

    def add(self, series: WaitingSeries) -> None:
        """Add what waits in one front end's view."""
        self.requests[series.priority] += series.requests
        self.oldest_ns = max(self.oldest_ns, series.oldest_ns)


@dataclass(slots=True)
class _Frontend:
    """What one living front end has told.

    Attributes:
        open: Requests that came and have not ended, by lane and API.
        waits_ns: How long requests are expected to wait, by lane.
        waiting: What waited when it told.
    """

    open: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    waits_ns: dict[int, int] = field(default_factory=dict)
    waiting: Sequence[WaitingSeries] = ()


@dataclass(slots=True)
class TimeTotals:
    """The sum of TimeSeries."""

    total_ns: int = 0
    buckets: list[int] = field(default_factory=_no_buckets)

    def add(self, series: TimeSeries) -> None:
        """Add what one front end measured."""
        self.total_ns += series.total_ns
        _add(self.buckets, series.buckets)


class Aggregate:
    """Adds up deltas. It belongs to the supervisor's event loop.

    A delta for a lane without a name is not counted: its version was forgotten while the delta was under way.

    Attributes:
        loop_lag: How late the event loops of front ends were.
        gc_pauses: How long garbage collections held them up.
        refusals: Calls and HTTP requests whose callers were not let in, by protocol and reason.
        ways: Requests of front ends in C by the way that they went.
    """

    def __init__(self) -> None:
        self._lanes: dict[int, Served] = {}
        self._requests: dict[RequestKey, RequestTotals] = {}
        self._runs: dict[Served, RunTotals] = {}
        self._former: dict[int, Served] = {}
        self._accepted: Counter[tuple[Served | None, str]] = Counter()
        self._frontends: dict[int, _Frontend] = {}
        self.loop_lag = TimeTotals()
        self.gc_pauses = TimeTotals()
        self.refusals: Counter[tuple[Protocol, RefusalReason]] = Counter()
        self.ways: Counter[NativeWay] = Counter()

    def name_lane(self, lane: int, model: str, version: int) -> None:
        """Say which model version a lane serves, before its first delta comes."""
        served = Served(model, version)
        self._lanes[lane] = served
        self._runs.setdefault(served, RunTotals())

    def forget_lane(self, lane: int) -> None:
        """Drop a retired lane, and its model version's totals unless another lane still serves that."""
        served = self._lanes.pop(lane)
        for frontend in self._frontends.values():
            frontend.waits_ns.pop(lane, None)
        if served in self._lanes.values():
            # What children have not told yet belongs to the version, which is still there.
            self._former[lane] = served
            if len(self._former) > _FORMER_LANES_KEPT:
                del self._former[next(iter(self._former))]
            return
        self._former = {lane: other for lane, other in self._former.items() if other != served}
        del self._runs[served]
        for key in [key for key in self._requests if key.served == served]:
            del self._requests[key]
        for came in [came for came in self._accepted if came[0] == served]:
            del self._accepted[came]

    def add_frontend(self, delta: FrontendDelta, frontend: int) -> None:
        """Add what one front end did."""
        known = self._frontends.setdefault(frontend, _Frontend())
        known.waits_ns.update(delta.waits_ns)
        for accepted in delta.accepted:
            if self._is_known(accepted.lane):
                self._accepted[self._served(accepted.lane), accepted.api] += accepted.requests
                known.open[accepted.lane, accepted.api] += accepted.requests
        for series in delta.requests:
            if self._is_known(series.lane):
                key = RequestKey(self._served(series.lane), series.api, series.status)
                self._requests.setdefault(key, RequestTotals()).add(series)
                known.open[series.lane, series.api] -= series.requests
        known.open = Counter({key: requests for key, requests in known.open.items() if requests})
        for shed in delta.shed:
            runs = self._runs_of(shed.lane)
            if runs is not None:
                runs.shed[shed.reason] = runs.shed.get(shed.reason, 0) + shed.requests
        for reason, calls in delta.refusals.items():
            self.refusals["grpc", reason] += calls
        self.ways.update(delta.ways)
        self.loop_lag.add(delta.loop_lag)
        self.gc_pauses.add(delta.gc_pauses)
        for retries in delta.retries:
            runs = self._runs_of(retries.lane)
            if runs is not None:
                runs.retries += retries.retries
                runs.poison += retries.poison

    def frontend_gone(self, frontend: int) -> None:
        """Count what a front end had accepted and not ended, as its clients see it: their connection broke.

        A request that another version answered in place of its own came here and ended there.
        """
        gone = self._frontends.pop(frontend, _Frontend())
        lost: Counter[str] = Counter()
        for (_, api), requests in gone.open.items():
            lost[api] += requests
        for (lane, api), requests in gone.open.items():
            ended = min(requests, lost[api])
            if ended > 0 and self._is_known(lane):
                lost[api] -= ended
                key = RequestKey(self._served(lane), api, LOST)
                self._requests.setdefault(key, RequestTotals()).requests += ended

    def accepted(self) -> dict[tuple[Served | None, str], int]:
        """Requests that came, by what serves them and API."""
        return dict(self._accepted)

    def expected_waits_ns(self) -> dict[Served, int]:
        """How long a request is expected to wait, where it would wait longest, for each named model version."""
        waits = dict.fromkeys(self._runs, 0)
        for frontend in self._frontends.values():
            for lane, expected_ns in frontend.waits_ns.items():
                if (served := self._lanes.get(lane)) is not None:
                    waits[served] = max(waits[served], expected_ns)
        return waits

    def waits(self, frontend: int, waiting: Sequence[WaitingSeries]) -> None:
        """Take in what waits in one front end's view, in place of what it told before."""
        self._frontends.setdefault(frontend, _Frontend()).waiting = waiting

    def waiting(self) -> dict[Served, Waiting]:
        """What waits, of all front ends, for each named model version."""
        totals = {served: Waiting() for served in self._runs}
        for frontend in self._frontends.values():
            for series in frontend.waiting:
                if (served := self._lanes.get(series.lane)) is not None:
                    totals[served].add(series)
        return totals

    def add_worker(self, delta: WorkerDelta) -> None:
        """Add what one worker did."""
        for series in delta.runs:
            runs = self._runs_of(series.lane)
            if runs is not None:
                runs.add(series)

    def requests(self) -> Iterator[tuple[RequestKey, RequestTotals]]:
        """The totals of front ends, in a stable order."""
        return iter(sorted(self._requests.items(), key=_request_order))

    def runs(self) -> Iterator[tuple[Served, RunTotals]]:
        """The totals of workers for each named model version, in a stable order."""
        return iter(sorted(self._runs.items()))

    def lane_statistics(self) -> list[LaneStatisticsRow]:
        """One row a named model version, with exact sums."""
        requests: dict[Served, list[tuple[str, RequestTotals]]] = {}
        for key, totals in self._requests.items():
            if key.served is not None:
                requests.setdefault(key.served, []).append((key.status, totals))
        return [_statistics(served, runs, requests.get(served, [])) for served, runs in self.runs()]

    def _is_known(self, lane: int | None) -> bool:
        return lane is None or lane in self._lanes or lane in self._former

    def _served(self, lane: int | None) -> Served | None:
        return None if lane is None else self._lanes.get(lane) or self._former[lane]

    def _runs_of(self, lane: int) -> RunTotals | None:
        served = self._lanes.get(lane) or self._former.get(lane)
        return None if served is None else self._runs[served]


def _request_order(item: tuple[RequestKey, RequestTotals]) -> tuple[str, int, str, str]:
    served, api, status = item[0]
    return (*(served or ("", 0)), api, status)


def _statistics(
    served: Served, runs: RunTotals, requests: list[tuple[str, RequestTotals]]
) -> LaneStatisticsRow:
    good = [totals for status, totals in requests if status == SUCCESS]
    bad = [totals for status, totals in requests if status != SUCCESS]
    answered = sum(totals.requests for totals in good)
    newest_ns = max((totals.last_unix_ns for totals in good), default=0)
    return LaneStatisticsRow(
        model=served.model,
        version=served.version,
        last_inference_ms=newest_ns // 1_000_000,
        inference_count=sum(totals.rows for totals in good),
        execution_count=runs.runs,
        success=CountAndTime(answered, sum(totals.total_ns for totals in good)),
        fail=CountAndTime(sum(totals.requests for totals in bad), sum(totals.total_ns for totals in bad)),
        queue=CountAndTime(answered, sum(totals.queue_ns for totals in good)),
        compute=CountAndTime(answered, sum(totals.compute_ns for totals in good)),
        batches={rows: CountAndTime(count, ns) for rows, (count, ns) in sorted(runs.batches.items())},
    )
