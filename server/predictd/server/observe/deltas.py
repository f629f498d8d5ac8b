"""What children tell the supervisor about the requests they handled, and the supervisor tells front ends.

A delta holds what came since the one before it. It travels over the control channel once a second or so.
Nothing in it is cumulative: a child that dies takes at most its last delta with it, and no total ever goes
backwards.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from predictd.server.errors import RefusalReason, ShedReason

SUCCESS = "OK"
"""The status of an answered request; every other status is a failure."""

DropReason = Literal["expired", "too_near", "cancelled"]
NativeWay = Literal[
    "hot",
    "handed",
    "closed",
    "compressed",
    "caller",
    "client_limit",
    "model",
    "shape",
    "content",
    "memory",
    "busy",
    "upload",
]
NATIVE_WAYS: tuple[NativeWay, ...] = get_args(NativeWay)
"""How requests go through a front end in C; it knows them by number."""
REFUSAL_REASONS: tuple[RefusalReason, ...] = get_args(RefusalReason)
SHED_REASONS: tuple[ShedReason, ...] = get_args(ShedReason)
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)


class RequestSeries(msgspec.Struct, frozen=True, array_like=True):
    """Requests of one lane, API and status.

    Attributes:
        lane: The lane's id; None for a model that the daemon does not know.
        api: The protocol, such as `kserve`.
        status: The gRPC status code's name.
        requests: All of them.
        total_ns: Their whole durations.
        rows: Rows of those that were run.
        queue_ns: Waiting of those that were run.
        compute_ns: Running of those that were run.
        last_unix_ns: When the newest of those that were run was answered, 0 if none was.
        duration_buckets: Whole durations of those that were run, by DURATION_BOUNDS_NS.
        queue_buckets: Waiting of those that were run, by DURATION_BOUNDS_NS.
    """

    lane: int | None
    api: str
    status: str
    requests: int
    total_ns: int
    rows: int
    queue_ns: int
    compute_ns: int
    last_unix_ns: int
    duration_buckets: list[int]
    queue_buckets: list[int]


class RetrySeries(msgspec.Struct, frozen=True, array_like=True):
    """What dead workers cost one lane.

    Attributes:
        lane: The lane's id.
        retries: Tickets put back.
        poison: Requests given up because they killed their worker.
    """

    lane: int
    retries: int
    poison: int


class AcceptedSeries(msgspec.Struct, frozen=True, array_like=True):
    """Requests of one lane and API that came; each is counted again, in a RequestSeries, when it ends.

    Attributes:
        lane: The lane's id; None for a model that the daemon does not know.
        api: The protocol.
        requests: All of them.
    """

    lane: int | None
    api: str
    requests: int


class ShedSeries(msgspec.Struct, frozen=True, array_like=True):
    """Requests of one lane that were refused because there was too much to do.

    Attributes:
        lane: The lane's id.
        reason: Which limit they met.
        requests: All of them.
    """

    lane: int
    reason: ShedReason
    requests: int


class TimeSeries(msgspec.Struct, frozen=True, array_like=True):
    """Times that one front end measured of itself.

    Attributes:
        total_ns: Their sum.
        buckets: How many there were, by DURATION_BOUNDS_NS; empty if none.
    """

    total_ns: int = 0
    buckets: list[int] = []


class WaitingSeries(msgspec.Struct, frozen=True, array_like=True):
    """Requests of one lane and priority that wait in one front end's view now, taken by no worker.

    Attributes:
        lane: The lane's id.
        priority: From 1.
        requests: All of them.
        oldest_ns: How long the oldest has waited.
    """

    lane: int
    priority: int
    requests: int
    oldest_ns: int


class FrontendDelta(msgspec.Struct, frozen=True, array_like=True):
    """What one front end did since its last delta.

    Attributes:
        requests: One entry a lane, API and status.
        retries: One entry a lane that had any.
        accepted: One entry a lane and API.
        shed: One entry a lane and reason.
        waits_ns: By lane, how long the newest request was expected to wait: no count.
        loop_lag: How late the event loop was.
        gc_pauses: How long garbage collections took.
        more: The recorder holds more than a message carries: take again.
        refusals: Calls whose callers were not let in, by reason.
        ways: Requests of a front end in C by the way that they went.
    """

    requests: list[RequestSeries] = []
    retries: list[RetrySeries] = []
    accepted: list[AcceptedSeries] = []
    shed: list[ShedSeries] = []
    waits_ns: dict[int, int] = {}
    more: bool = False
    loop_lag: TimeSeries = TimeSeries()
    gc_pauses: TimeSeries = TimeSeries()
    refusals: dict[RefusalReason, int] = {}
    ways: dict[NativeWay, int] = {}

    def __bool__(self) -> bool:
        return bool(self.requests or self.retries or self.accepted or self.shed or self.refusals)


class RunSeries(msgspec.Struct, frozen=True, array_like=True):
    """Runs of one lane in one worker.

    Attributes:
        lane: The lane's id.
        tickets: Requests that took part in a run.
        rows: Rows that were run.
        compute_buckets: Durations of the runs, by DURATION_BOUNDS_NS.
        batches: For each `rows_key` of a run: how many runs, and their time in ns.
        dropped: Tickets that were never run, by reason.
        expected_ns: What a run is expected to take, by rows: no count, but what is known now.
    """

    lane: int
    tickets: int
    rows: int
    compute_buckets: list[int]
    batches: dict[int, tuple[int, int]]
    dropped: dict[DropReason, int]
    expected_ns: dict[int, int] = {}


class WorkerDelta(msgspec.Struct, frozen=True, array_like=True):
    """What one worker did since its last delta.

    Attributes:
        runs: One entry a lane.
        more: The recorder holds more than a message carries: take again.
    """

    runs: list[RunSeries] = []
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.runs)


class CountAndTime(msgspec.Struct, frozen=True, array_like=True):
    """How often something happened and the nanoseconds it took altogether."""

    count: int = 0
    ns: int = 0


class LaneStatisticsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model version's history over all processes, for Triton's ModelStatistics.

    Attributes:
        model: Name.
        version: Number.
        last_inference_ms: Milliseconds since the epoch of the newest answer, 0 if none.
        inference_count: Rows answered (requests, for a model that does not batch).
        execution_count: Runs of the engine.
        success: Requests answered, and their whole durations.
        fail: Requests that failed, and their whole durations.
        queue: Waiting of the answered ones.
        compute: Running of the answered ones, each counted with the whole run it took part in.
        batches: For each number of rows in a run (large ones rounded up by `rows_key`): how many runs, and
            their time.
    """

    model: str
    version: int
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: CountAndTime
    fail: CountAndTime
    queue: CountAndTime
    compute: CountAndTime
    batches: dict[int, CountAndTime]
