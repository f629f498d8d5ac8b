"""One reader a metric: from the totals and the gauges to label values and numbers.

A reader returns a dictionary, so no series appears twice: Prometheus refuses a whole scrape for a duplicate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from predictd.server.observe.aggregate import PROTOCOLS, Aggregate, RunTotals, Served, TimeTotals, Waiting
from predictd.server.observe.buckets import DURATION_BUCKETS_SECONDS, ROWS_BUCKETS
from predictd.server.observe.deltas import DROP_REASONS, NATIVE_WAYS, REFUSAL_REASONS, SHED_REASONS, SUCCESS
from predictd.server.observe.gauges import LANE_STATES, Gauges, MemoryGauge
from predictd.server.observe.processes import Memory


class View(NamedTuple):
    """Everything that a scrape looks at."""

    aggregate: Aggregate
    gauges: Gauges


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's value.

    Attributes:
        bounds: Upper bounds.
        buckets: Observations in each bucket, and in one more for what lies past the last bound.
        total: Sum of what was observed, in the bounds' unit.
    """

    bounds: tuple[float, ...]
    buckets: list[int]
    total: float


Labels = tuple[str, ...]
Numbers = dict[Labels, float]
Distributions = dict[Labels, Distribution]


def _labels(served: Served | None) -> Labels:
    return ("", "") if served is None else (served.model, str(served.version))


def _requests(view: View) -> Numbers:
    return {
        (*_labels(key.served), key.api, key.status): totals.requests
        for key, totals in view.aggregate.requests()
    }


def _request_durations(view: View) -> Distributions:
    return {
        (*_labels(key.served), key.api): _durations(totals.duration_buckets, totals.total_ns)
        for key, totals in view.aggregate.requests()
        if key.status == SUCCESS
    }


def _queue_durations(view: View) -> Distributions:
    buckets: dict[Labels, list[int]] = {}
    sums_ns: dict[Labels, int] = {}
    for key, totals in view.aggregate.requests():
        if any(totals.queue_buckets):
            labels = _labels(key.served)
            before = buckets.get(labels, [0] * len(totals.queue_buckets))
            buckets[labels] = [a + b for a, b in zip(before, totals.queue_buckets, strict=True)]
            sums_ns[labels] = sums_ns.get(labels, 0) + totals.queue_ns
    return {labels: _durations(counts, sums_ns[labels]) for labels, counts in buckets.items()}


def _compute_durations(view: View) -> Distributions:
    return {
        _labels(served): _durations(runs.compute_buckets, runs.compute_ns)
        for served, runs in _lanes_that_ran(view)
    }


def _batch_rows(view: View) -> Distributions:
    return {_labels(served): batch_rows(runs) for served, runs in _lanes_that_ran(view)}


def _lanes_that_ran(view: View) -> Iterator[tuple[Served, RunTotals]]:
    # A histogram has 30 series: those of models that nobody uses would make up most of a scrape.
    return ((served, runs) for served, runs in view.aggregate.runs() if runs.batches)


def _durations(buckets: list[int], total_ns: int) -> Distribution:
    return Distribution(DURATION_BUCKETS_SECONDS, buckets, total_ns / 1e9)


def _times(totals: TimeTotals) -> Distribution:
    return _durations(totals.buckets, totals.total_ns)


def batch_rows(runs: RunTotals) -> Distribution:
    """Rows of successful runs, as predictd_batch_rows has them."""
    buckets = [0] * (len(ROWS_BUCKETS) + 1)
    for rows, (count, _) in runs.batches.items():
        buckets[bisect_left(ROWS_BUCKETS, rows)] += count
    return Distribution(ROWS_BUCKETS, buckets, runs.rows)


def _per_lane(read: Callable[[RunTotals], int]) -> Callable[[View], Numbers]:
    return lambda view: {_labels(served): read(runs) for served, runs in view.aggregate.runs()}


def _dropped(view: View) -> Numbers:
    return {
        (*_labels(served), reason): runs.dropped.get(reason, 0)
        for served, runs in view.aggregate.runs()
        for reason in DROP_REASONS
    }


def _shed(view: View) -> Numbers:
    return {
        (*_labels(served), reason): runs.shed.get(reason, 0)
        for served, runs in view.aggregate.runs()
        for reason in SHED_REASONS
    }


def _refused(view: View) -> Numbers:
    return {
        (protocol, reason): view.aggregate.refusals[protocol, reason]
        for protocol in PROTOCOLS
        for reason in REFUSAL_REASONS
    }


def _ways(view: View) -> Numbers:
    # Where no front end is in C, there are none to tell of.
    counted = view.aggregate.ways
    return {(way,): counted[way] for way in NATIVE_WAYS} if counted else {}


def _certificate_expiry(view: View) -> Numbers:
    expiry = view.gauges.certificate_expiry_unix_seconds
    return {} if expiry is None else {(): expiry}


def _accepted(view: View) -> Numbers:
    return {(*_labels(served), api): count for (served, api), count in view.aggregate.accepted().items()}


def _expected_waits(view: View) -> Numbers:
    return {_labels(served): ns / 1e9 for served, ns in view.aggregate.expected_waits_ns().items()}


def _waiting(read: Callable[[Waiting], float]) -> Callable[[View], Numbers]:
    return lambda view: {
        _labels(served): read(waiting) for served, waiting in view.aggregate.waiting().items()
    }


def _queue_fill(view: View) -> Numbers:
    waiting = view.aggregate.waiting()
    return {
        (lane.model, str(lane.version)): max(
            waiting[served].requests[priority] / limit for priority, limit in enumerate(lane.queue_limits, 1)
        )
        for lane in view.gauges.readiness.lanes
        if lane.queue_limits and (served := Served(lane.model, lane.version)) in waiting
    }


def _overheads(view: View) -> Numbers:
    # Of a request that failed without a run nobody knows what its time went into.
    return {
        (*_labels(key.served), key.api): (totals.total_ns - totals.queue_ns - totals.compute_ns) / 1e9
        for key, totals in view.aggregate.requests()
        if key.status == SUCCESS
    }


def _expected_runs(view: View) -> Numbers:
    return {
        (*_labels(served), str(rows)): ns / 1e9
        for served, runs in view.aggregate.runs()
        for rows, ns in sorted(runs.expected_ns.items())
    }


def _lane_states(view: View) -> Numbers:
    # Two lanes of one model version live side by side while one replaces the other: both states are then 1.
    lanes = view.gauges.readiness.lanes
    present = {(lane.model, str(lane.version), lane.state) for lane in lanes}
    return {
        (lane.model, str(lane.version), state): (lane.model, str(lane.version), state) in present
        for lane in lanes
        for state in LANE_STATES
    }


def _load_durations(view: View) -> Numbers:
    return {
        (lane.model, str(lane.version)): lane.load_seconds
        for lane in view.gauges.readiness.lanes
        if lane.load_seconds is not None
    }


def _worker_states(view: View) -> Numbers:
    return {
        (worker.pool, str(worker.worker), state): worker.state == state
        for worker in view.gauges.workers
        for state in view.gauges.worker_states
    }


def _memory(read: Callable[[Memory], int]) -> Callable[[View], Numbers]:
    return lambda view: {
        (process.role, process.index): read(process.memory)
        for process in view.gauges.processes
        if process.memory is not None
    }


def _memory_limits(read: Callable[[MemoryGauge], int]) -> Callable[[View], Numbers]:
    return lambda view: {} if view.gauges.memory is None else {(): read(view.gauges.memory)}


def _plans(view: View) -> Numbers:
    return {(plan.role, plan.index, plan.cpus, str(plan.threads)): 1 for plan in view.gauges.plans}


def _build(view: View) -> Numbers:
    build = view.gauges.build
    return {(build.version, build.python, build.onnxruntime): 1}


NUMBERS: Mapping[str, Callable[[View], Numbers]] = {
    "predictd_accepted_total": _accepted,
    "predictd_requests_total": _requests,
    "predictd_runs_total": _per_lane(lambda runs: runs.runs),
    "predictd_run_requests_total": _per_lane(lambda runs: runs.tickets),
    "predictd_dropped_total": _dropped,
    "predictd_shed_total": _shed,
    "predictd_refused_calls_total": _refused,
    "predictd_native_requests_total": _ways,
    "predictd_tls_certificate_expiry_timestamp_seconds": _certificate_expiry,
    "predictd_credentials_reload_failures_total": lambda view: {
        (what,): count for what, count in view.gauges.credential_failures.items()
    },
    "predictd_expected_wait_seconds": _expected_waits,
    "predictd_expected_run_seconds": _expected_runs,
    "predictd_request_overhead_seconds_total": _overheads,
    "predictd_retries_total": _per_lane(lambda runs: runs.retries),
    "predictd_poison_total": _per_lane(lambda runs: runs.poison),
    "predictd_queue_depth": lambda view: {
        (queue.pool, str(queue.priority)): queue.depth for queue in view.gauges.queues
    },
    "predictd_queue_capacity": lambda view: {
        (queue.pool, str(queue.priority)): queue.capacity for queue in view.gauges.queues
    },
    "predictd_waiting_requests": _waiting(lambda waiting: waiting.requests.total()),
    "predictd_oldest_wait_seconds": _waiting(lambda waiting: waiting.oldest_ns / 1e9),
    "predictd_queue_fill_ratio": _queue_fill,
    "predictd_in_flight": lambda view: {
        (str(frontend),): count for frontend, count in view.gauges.in_flight.items()
    },
    "predictd_lane_state": _lane_states,
    "predictd_load_duration_seconds": _load_durations,
    "predictd_worker_state": _worker_states,
    "predictd_worker_restarts_total": lambda view: {
        (pool,): count for pool, count in view.gauges.worker_restarts.items()
    },
    "predictd_frontend_restarts_total": lambda view: {
        (str(frontend),): count for frontend, count in view.gauges.frontend_restarts.items()
    },
    "predictd_hang_kills_total": lambda view: {
        (role, reason): count for (role, reason), count in view.gauges.kills.items()
    },
    "predictd_process_resident_bytes": _memory(lambda memory: memory.resident_bytes),
    "predictd_process_anonymous_bytes": _memory(lambda memory: memory.anonymous_bytes),
    "predictd_process_cpu_seconds_total": lambda view: {
        (process.role, process.index): process.cpu_seconds for process in view.gauges.processes
    },
    "predictd_arena_bytes": lambda view: {
        (process.role, process.index): process.arena_bytes for process in view.gauges.processes
    },
    "predictd_arena_given_back_bytes_total": lambda view: {
        (role, index): count for (role, index), count in view.gauges.given_back_bytes.items()
    },
    "predictd_arena_limit_bytes": _memory_limits(lambda memory: memory.arena_limit_bytes),
    "predictd_memory_limit_bytes": _memory_limits(lambda memory: memory.limit_bytes),
    "predictd_memory_headroom_bytes": _memory_limits(lambda memory: memory.headroom_bytes),
    "predictd_plan_info": _plans,
    "predictd_plan_cpus": lambda view: {
        (plan.role, plan.index): plan.cpu_count for plan in view.gauges.plans
    },
    "predictd_ready": lambda view: {(): view.gauges.readiness.ready},
    "predictd_process_start_time_seconds": lambda view: {(): view.gauges.start_unix_seconds},
    "predictd_gpu_memory_used_bytes": lambda view: {(gpu.gpu,): gpu.used_bytes for gpu in view.gauges.gpus},
    "predictd_gpu_memory_bytes": lambda view: {(gpu.gpu,): gpu.total_bytes for gpu in view.gauges.gpus},
    "predictd_gpu_utilization_ratio": lambda view: {
        (gpu.gpu,): gpu.utilization_ratio for gpu in view.gauges.gpus
    },
    "predictd_gpu_temperature_celsius": lambda view: {
        (gpu.gpu,): gpu.temperature_celsius for gpu in view.gauges.gpus
    },
    "predictd_build_info": _build,
}
"""Counters and gauges by metric name."""

HISTOGRAMS: Mapping[str, Callable[[View], Distributions]] = {
    "predictd_request_duration_seconds": _request_durations,
    "predictd_queue_duration_seconds": _queue_durations,
    "predictd_compute_duration_seconds": _compute_durations,
    "predictd_batch_rows": _batch_rows,
    "predictd_frontend_loop_lag_seconds": lambda view: {(): _times(view.aggregate.loop_lag)},
    "predictd_frontend_gc_pause_seconds": lambda view: {(): _times(view.aggregate.gc_pauses)},
}
"""Histograms by metric name."""
