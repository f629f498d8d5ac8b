"""However records are spread over children, deltas and lanes of a model version, the totals are the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.deltas import DROP_REASONS, DropReason, FrontendDelta, WorkerDelta
from predictd.server.observe.exposition import render
from predictd.server.observe.gauges import BuildInfo, Gauges, Readiness
from predictd.server.observe.recorder import FrontendRecorder, WorkerRecorder

CHILDREN = 3
MODELS = (("a", 1), ("a", 2))
GAUGES = Gauges(readiness=Readiness(ready=True), build=BuildInfo("", "", ""), start_unix_seconds=0)

durations = st.one_of(st.integers(0, 10**6), st.integers(0, 10**11))
rows = st.one_of(st.integers(0, 40), st.integers(0, 10**6))
apis = st.sampled_from(["predictd", "kserve"])
failures = st.just("CANCELLED")
statuses = st.just("OK") | failures
models = st.integers(0, len(MODELS) - 1)


@dataclass(frozen=True)
class Answered:
    model: int
    api: str
    status: str
    total_ns: int
    queue_ns: int
    compute_ns: int
    rows: int


@dataclass(frozen=True)
class Failed:
    model: int | None
    api: str
    status: str
    total_ns: int


@dataclass(frozen=True)
class Retried:
    model: int
    poison: bool


@dataclass(frozen=True)
class Ran:
    model: int
    rows: int
    tickets: int
    compute_ns: int


@dataclass(frozen=True)
class Dropped:
    model: int
    reason: DropReason
    count: int


Record = Answered | Failed | Retried | Ran | Dropped

records = st.one_of(
    st.builds(Answered, models, apis, statuses, durations, durations, durations, rows),
    st.builds(Failed, st.none() | models, apis, failures, durations),
    st.builds(Retried, models, st.booleans()),
    st.builds(Ran, models, rows, st.integers(1, 40), durations),
    st.builds(Dropped, models, st.sampled_from(DROP_REASONS), st.integers(1, 9)),
)


@dataclass(frozen=True)
class Take:
    """The supervisor collects from a child."""

    child: int


@dataclass(frozen=True)
class Replace:
    """A child leaves once it was collected from, and a new one takes its place."""

    child: int


@dataclass(frozen=True)
class Event:
    """A child records, for the older or the newer of a model version's two lanes."""

    child: int
    newer: bool
    record: Record


children = st.integers(0, CHILDREN - 1)
histories = st.lists(
    st.one_of(
        st.builds(Event, children, st.booleans(), records),
        st.builds(Event, children, st.booleans(), records),
        st.builds(Take, children),
        st.builds(Replace, children),
    ),
    max_size=60,
)


class Child:
    """A front end and a worker in one, with a clock that all children share."""

    def __init__(self, clock: itertools.count[int]) -> None:
        self.frontend = FrontendRecorder(clock=clock.__next__)
        self.worker = WorkerRecorder()

    def record(self, record: Record, lane: int | None) -> None:
        match record, lane:
            case Failed(_, api, status, total_ns), _:
                self.frontend.failed(lane, api, status, total_ns)
            case Answered(_, api, status, total_ns, queue_ns, compute_ns, rows), int(lane):
                self.frontend.answered(lane, api, status, total_ns, queue_ns, compute_ns, rows)
            case Retried(_, poison), int(lane):
                (self.frontend.poisoned if poison else self.frontend.retried)(lane)
            case Ran(_, rows, tickets, compute_ns), int(lane):
                self.worker.ran(lane, rows, tickets, compute_ns)
            case Dropped(_, reason, count), int(lane):
                self.worker.dropped(lane, reason, count)

    def report(self, aggregate: Aggregate) -> None:
        frontend = msgspec.msgpack.encode(self.frontend.take())
        aggregate.add_frontend(msgspec.msgpack.decode(frontend, type=FrontendDelta), 1)
        worker = msgspec.msgpack.encode(self.worker.take())
        aggregate.add_worker(msgspec.msgpack.decode(worker, type=WorkerDelta))


def new_aggregate() -> Aggregate:
    aggregate = Aggregate()
    for lane, (model, version) in enumerate(MODELS):
        aggregate.name_lane(lane, model, version)
        aggregate.name_lane(lane + len(MODELS), model, version)
    return aggregate


def lane_of(event: Event) -> int | None:
    model = event.record.model
    return model if model is None or not event.newer else model + len(MODELS)


def totals(aggregate: Aggregate) -> tuple[object, ...]:
    return (
        dict(aggregate.requests()),
        dict(aggregate.runs()),
        aggregate.lane_statistics(),
        render(aggregate, GAUGES, "").body,
    )


@given(histories)
def test_any_interleaving_adds_up_to_one_recorder(history: list[Event | Take | Replace]) -> None:
    split, clock = new_aggregate(), itertools.count(1)
    children = [Child(clock) for _ in range(CHILDREN)]
    for step in history:
        if isinstance(step, Event):
            children[step.child].record(step.record, lane_of(step))
            continue
        children[step.child].report(split)
        if isinstance(step, Replace):
            children[step.child] = Child(clock)
    for child in children:
        child.report(split)
    # The totals belong to the model version and stay when the older of its lanes goes.
    for lane in range(len(MODELS)):
        split.forget_lane(lane)

    whole, alone = new_aggregate(), Child(itertools.count(1))
    for step in history:
        if isinstance(step, Event):
            alone.record(step.record, lane_of(step))
    alone.report(whole)
    assert totals(split) == totals(whole)


@given(st.lists(st.builds(Event, st.just(0), st.booleans(), records), max_size=60))
def test_histograms_agree_with_counters(history: list[Event]) -> None:
    aggregate, child = new_aggregate(), Child(itertools.count(1))
    for event in history:
        child.record(event.record, lane_of(event))
    child.report(aggregate)

    made = [event.record for event in history]
    answered = [record for record in made if isinstance(record, Answered)]
    runs = [record for record in made if isinstance(record, Ran)]
    requests = [totals for _, totals in aggregate.requests()]
    assert sum(t.requests for t in requests) == sum(isinstance(r, Answered | Failed) for r in made)
    assert sum(sum(t.duration_buckets) for t in requests) == len(answered)
    assert sum(sum(t.queue_buckets) for t in requests) == len(answered)
    assert sum(t.queue_ns for t in requests) == sum(r.queue_ns for r in answered)
    assert sum(t.runs for _, t in aggregate.runs()) == len(runs)
    assert sum(t.rows for _, t in aggregate.runs()) == sum(r.rows for r in runs)
    assert sum(t.compute_ns for _, t in aggregate.runs()) == sum(r.compute_ns for r in runs)
    good = [r for r in answered if r.status == "OK"]
    statistics = aggregate.lane_statistics()
    assert sum(row.success.count for row in statistics) == len(good)
    assert sum(row.success.ns for row in statistics) == sum(r.total_ns for r in good)
    assert sum(row.inference_count for row in statistics) == sum(r.rows for r in good)
