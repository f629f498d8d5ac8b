"""What the status page and `predictd top` show, as one document: a pure function of what the supervisor knows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from predictd.server.observe.aggregate import Aggregate, RunTotals, Served
from predictd.server.observe.escape import escape_controls
from predictd.server.observe.gauges import Gauges, ProcessGauge
from predictd.server.observe.history import IDLE, History, Point, Rates
from predictd.server.observe.recent import RecentEvent
from predictd.server.observe.samples import batch_rows

JSON_VERSION: Final = 1
"""Goes up when a key changes its meaning or goes away; new keys may come at any time."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A version of a model.

    Attributes:
        reason: Why it failed, or why its new content did while the old serves on; else empty.
        pool: Of the workers that host it; empty if that could not be made.
        instances: Workers of that pool.
    """

    version: int
    state: str
    reason: str
    pool: str
    instances: int
    engine: str
    max_batch_size: int


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """A label, the version it means, and what it will mean once that is ready (0: the same)."""

    name: str
    version: int
    next_version: int


@dataclass(frozen=True, slots=True)
class ShareInfo:
    """The percentage of those requests for a version that name neither a version nor a label."""

    version: int
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model. Its default version is 0 while none is ready."""

    name: str
    default_version: int
    labels: tuple[LabelInfo, ...]
    split: tuple[ShareInfo, ...]
    versions: tuple[VersionInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A child's place, as planned, and whoever has it now.

    Attributes:
        role: "frontend" or "worker".
        index: A front end's number, "<pool>/<number>" for a worker.
        pid: None while nobody runs there.
        cpus: Such as "0-3".
        owns_cores: No other worker is allowed on its CPUs.
        spin: Its threads may spin while they wait.
        numa_nodes: Memory that it prefers, such as "0"; empty for whichever is nearest.
        reasons: Why all that.
    """

    role: str
    index: str
    state: str
    pid: int | None
    restarts: int
    cpus: str
    threads: int
    owns_cores: bool
    spin: bool
    numa_nodes: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInfo:
    """What the CPU plan was made from at the start, and why it is so."""

    cpus: str
    usable_cpus: int
    quota_cpus: float | None
    memory_bytes: int | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What no gauge and no counter tells.

    Attributes:
        models: All that there are.
        processes: The children.
        plan: Of them, at the start.
        pid: The supervisor's, which takes signals.
    """

    models: tuple[ModelInfo, ...]
    processes: tuple[ProcessInfo, ...]
    plan: PlanInfo
    pid: int


def status_document(
    aggregate: Aggregate,
    gauges: Gauges,
    overview: Overview,
    history: History,
    events: Iterable[RecentEvent],
    *,
    unix_seconds: float,
    model: str = "",
) -> Document:
    """Everything.

    Args:
        aggregate: The totals of the children.
        gauges: What /metrics shows of this moment.
        overview: The rest of it.
        history: The last minutes.
        events: The last warnings and errors, the newest first.
        unix_seconds: The time of day.
        model: Whose last minutes are wanted; those of all where it is empty or names nothing.
    """
    requests = _requests(aggregate)
    runs = dict(aggregate.runs())
    now = history.now_by_version()
    waiting = aggregate.waiting()
    load_seconds = {(lane.model, lane.version): lane.load_seconds for lane in gauges.readiness.lanes}

    def version_document(name: str, info: VersionInfo) -> Document:
        served = Served(name, info.version)
        return {
            **asdict(info),
            "load_seconds": load_seconds.get(served),
            "requests": requests.get(served, {}),
            "now": now.get(served, IDLE)._asdict(),
            "waiting": waiting[served].requests.total() if served in waiting else 0,
            "oldest_wait_seconds": waiting[served].oldest_ns / 1e9 if served in waiting else 0.0,
            **_runs(runs.get(served, RunTotals())),
        }

    return {
        "version": JSON_VERSION,
        "unix_seconds": unix_seconds,
        "started_unix_seconds": gauges.start_unix_seconds,
        "build": asdict(gauges.build),
        "ready": gauges.readiness.ready,
        "reasons": gauges.readiness.reasons,
        "now": history.now()._asdict(),
        "requests": _summed(requests.values()),
        "unknown_model_requests": requests.get(None, {}),
        "models": [
            {**asdict(info), "versions": [version_document(info.name, version) for version in info.versions]}
            for info in overview.models
        ],
        "waiting": sum(each.requests.total() for each in waiting.values()),
        "queues": [asdict(queue) for queue in gauges.queues],
        "in_flight": sum(gauges.in_flight.values()),
        "kills": sum(gauges.kills.values()),
        "processes": _processes(gauges.processes, overview),
        "memory": None if gauges.memory is None else asdict(gauges.memory),
        "gpus": [asdict(gpu) for gpu in gauges.gpus],
        "plan": asdict(overview.plan),
        "history": _history(
            history.points(),
            # Who asks knows the names as they are shown.
            next((info.name for info in overview.models if escape_controls(info.name) == model), ""),
        ),
        "events": [asdict(event) for event in events],
    }


def encode(document: Document) -> bytes:
    """The document as JSON in which every string is one harmless line."""
    return json.dumps(_harmless(document), ensure_ascii=False, separators=(",", ":")).encode()


def _harmless(value: object) -> object:
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, Mapping):
        return {escape_controls(str(key)): _harmless(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_harmless(each) for each in value]
    return value


def _requests(aggregate: Aggregate) -> dict[Served | None, dict[str, int]]:
    """Requests by status, whatever the API, by what served them."""
    found: dict[Served | None, dict[str, int]] = {}
    for key, totals in aggregate.requests():
        statuses = found.setdefault(key.served, {})
        statuses[key.status] = statuses.get(key.status, 0) + totals.requests
    return found


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for status, requests in each.items():
            total[status] = total.get(status, 0) + requests
    return total


def _runs(runs: RunTotals) -> Document:
    rows = batch_rows(runs)
    return {
        "runs": runs.runs,
        "run_requests": runs.tickets,
        "rows": runs.rows,
        # The bound None is that of the runs past the last one.
        "batches": [
            {"rows_max": bound, "runs": count}
            for bound, count in zip((*rows.bounds, None), rows.buckets, strict=True)
            if count
        ],
        "retries": runs.retries,
        "poison": runs.poison,
        "shed": dict(runs.shed),
        "dropped": dict(runs.dropped),
    }


def _processes(gauges: Iterable[ProcessGauge], overview: Overview) -> list[Document]:
    """What is planned for each process and what it takes; the supervisor is not planned."""
    planned = {(info.role, info.index): asdict(info) for info in overview.processes}
    supervisor = {"state": "running", "pid": overview.pid, "restarts": 0}
    return [_process(gauge, planned.get((gauge.role, gauge.index), supervisor)) for gauge in gauges]


def _process(gauge: ProcessGauge, info: Document) -> Document:
    memory = gauge.memory
    return {
        "role": gauge.role,
        "index": gauge.index,
        **info,
        "cpu_seconds": gauge.cpu_seconds,
        "resident_bytes": None if memory is None else memory.resident_bytes,
        "anonymous_bytes": None if memory is None else memory.anonymous_bytes,
        "arena_bytes": gauge.arena_bytes,
    }


def _history(points: Sequence[Point], model: str) -> Document:
    rates = [point.models.get(model, IDLE) if model else point.total for point in points]
    return {
        "model": model,
        "unix_seconds": [round(point.unix_seconds, 3) for point in points],
        "waiting": [point.waiting for point in points],
        "in_flight": [point.in_flight for point in points],
        **{name: [getattr(rate, name) for rate in rates] for name in Rates._fields},
    }
