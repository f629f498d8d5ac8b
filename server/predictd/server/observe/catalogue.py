"""Every metric of predictd: name, type, labels and meaning. The documentation is generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: Full name, without the suffixes that a histogram's series carry.
        kind: Prometheus type.
        labels: Label names. Their values come from bounded sets: models that are served, never names that
            clients send.
        help: What it means, one line.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_MODEL = ("model", "version")

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "predictd_accepted_total",
        "counter",
        (*_MODEL, "api"),
        "Requests that came. Each is counted again when it ends, once, in predictd_requests_total: what is missing "
        "there is being worked on.",
    ),
    MetricSpec(
        "predictd_requests_total",
        "counter",
        (*_MODEL, "api", "status"),
        "Requests by gRPC status. Those for models that the daemon does not know have an empty model and "
        "version.",
    ),
    MetricSpec(
        "predictd_refused_calls_total",
        "counter",
        ("protocol", "reason"),
        "Calls and HTTP requests whose callers were not let in: they showed nothing, something that is not valid, or "
        "may not do this, or not with this model. They count nowhere else.",
    ),
    MetricSpec(
        "predictd_native_requests_total",
        "counter",
        ("way",),
        "Requests to the front end in C, where that serves. hot: it did all of it. handed: it began, Python brought "
        "it to its end. Anything else says why Python had the whole request; native.md has a table of it.",
    ),
    MetricSpec(
        "predictd_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        (),
        "When the certificate that clients are shown, or one up to its root, ceases to be valid, in seconds since the "
        "epoch.",
    ),
    MetricSpec(
        "predictd_credentials_reload_failures_total",
        "counter",
        ("what",),
        "How often a changed certificate, or changed tokens, could not be taken, so that the old ones stayed.",
    ),
    MetricSpec(
        "predictd_request_duration_seconds",
        "histogram",
        (*_MODEL, "api"),
        "From the arrival of a request to its answer. Only requests with status OK, so that a fast refusal "
        "is not taken for a fast answer; divide by predictd_requests_total for the share of good and fast "
        "ones.",
    ),
    MetricSpec(
        "predictd_queue_duration_seconds",
        "histogram",
        _MODEL,
        "From the acceptance of a request to the start of its run, one observation a request that was run.",
    ),
    MetricSpec(
        "predictd_compute_duration_seconds",
        "histogram",
        _MODEL,
        "Time in the engine, one observation a successful run, whatever the number of requests in it.",
    ),
    MetricSpec(
        "predictd_request_overhead_seconds_total",
        "counter",
        (*_MODEL, "api"),
        "What the durations of requests with status OK have beside waiting and the engine: checking, copying, the way "
        "to the worker and back, encoding. Divide its rate by that of predictd_request_duration_seconds_count.",
    ),
    MetricSpec(
        "predictd_batch_rows",
        "histogram",
        _MODEL,
        "Rows of a successful run; 1 for models that do not batch.",
    ),
    MetricSpec("predictd_runs_total", "counter", _MODEL, "Successful runs of the engine."),
    MetricSpec(
        "predictd_run_requests_total",
        "counter",
        _MODEL,
        "Requests that took part in runs. A request that was retried counts each time.",
    ),
    MetricSpec(
        "predictd_dropped_total",
        "counter",
        (*_MODEL, "reason"),
        "Requests that a worker took from the queue and did not run: expired, cancelled, or with a deadline too near "
        "for a run.",
    ),
    MetricSpec(
        "predictd_shed_total",
        "counter",
        (*_MODEL, "reason"),
        "Requests refused at once, by the limit that they met: max_queue_size, max_queue_bytes, "
        "max_concurrent_per_client, memory (arena_limit), or a wait that was expected to be longer than their "
        "deadline.",
    ),
    MetricSpec(
        "predictd_expected_wait_seconds",
        "gauge",
        _MODEL,
        "How long the newest request was expected to wait in its queue; 0 while nothing waits or too little is known.",
    ),
    MetricSpec(
        "predictd_expected_run_seconds",
        "gauge",
        (*_MODEL, "rows"),
        "How long a run is expected to take, by its rows, for the powers of two. Learned from the last runs.",
    ),
    MetricSpec(
        "predictd_retries_total", "counter", _MODEL, "Requests put back because a worker died or lost them."
    ),
    MetricSpec(
        "predictd_poison_total",
        "counter",
        _MODEL,
        "Requests given up because they killed a worker while they ran alone.",
    ),
    MetricSpec(
        "predictd_queue_depth",
        "gauge",
        ("pool", "priority"),
        "Requests that wait in a queue. Priority 1 is served first. Workers read ahead: predictd_waiting_requests has "
        "what they have not begun with, too.",
    ),
    MetricSpec(
        "predictd_queue_capacity",
        "gauge",
        ("pool", "priority"),
        "Requests that fit into a queue, of all models of its pool together: one more is refused.",
    ),
    MetricSpec(
        "predictd_waiting_requests",
        "gauge",
        _MODEL,
        "Requests that no worker has taken yet, in the queue or in the hands of whoever plans the next batch.",
    ),
    MetricSpec(
        "predictd_queue_fill_ratio",
        "gauge",
        _MODEL,
        "Requests that wait as a share of max_queue_size, of the priority where it is largest: at 1 one more is "
        "refused.",
    ),
    MetricSpec(
        "predictd_oldest_wait_seconds",
        "gauge",
        _MODEL,
        "How long the oldest request has waited that no worker has taken yet; 0 while nothing waits.",
    ),
    MetricSpec(
        "predictd_in_flight",
        "gauge",
        ("frontend",),
        "Requests that a front end accepted and has not answered.",
    ),
    MetricSpec(
        "predictd_lane_state",
        "gauge",
        (*_MODEL, "state"),
        "1 for the state that a model version is in, 0 for the others.",
    ),
    MetricSpec(
        "predictd_load_duration_seconds",
        "gauge",
        _MODEL,
        "From the start of a model version's workers until all were warm, the last time it was loaded.",
    ),
    MetricSpec(
        "predictd_worker_state",
        "gauge",
        ("pool", "worker", "state"),
        "1 for the state that a worker is in, 0 for the others.",
    ),
    MetricSpec(
        "predictd_worker_restarts_total",
        "counter",
        ("pool",),
        "Workers that were started in place of a dead one.",
    ),
    MetricSpec(
        "predictd_frontend_restarts_total",
        "counter",
        ("frontend",),
        "Front ends that were started in place of a dead one.",
    ),
    MetricSpec(
        "predictd_hang_kills_total",
        "counter",
        ("role", "reason"),
        "Processes that were killed because they hung: stopped by a signal, silent, stuck (a worker that answers and "
        "does nothing), or beyond run_timeout or load_timeout.",
    ),
    MetricSpec(
        "predictd_frontend_loop_lag_seconds",
        "histogram",
        (),
        "How late the event loops of front ends come to what is due, looked at ten times a second each.",
    ),
    MetricSpec(
        "predictd_frontend_gc_pause_seconds",
        "histogram",
        (),
        "How long a garbage collection held up a front end.",
    ),
    MetricSpec(
        "predictd_process_resident_bytes",
        "gauge",
        ("role", "index"),
        "Resident memory of a process. Shared memory counts in each process that touched it.",
    ),
    MetricSpec(
        "predictd_process_anonymous_bytes",
        "gauge",
        ("role", "index"),
        "The part of a process's resident memory that is neither shared memory nor pages of files. In a worker these "
        "are the engines, with what of their weights they do not map from files, and about 60 MiB of interpreter.",
    ),
    MetricSpec(
        "predictd_process_cpu_seconds_total",
        "counter",
        ("role", "index"),
        "CPU time of all processes that had a place, dead ones included.",
    ),
    MetricSpec(
        "predictd_arena_bytes", "gauge", ("role", "index"), "Shared memory that a process owns for tensors."
    ),
    MetricSpec(
        "predictd_arena_given_back_bytes_total",
        "counter",
        ("role", "index"),
        "Shared memory that a process had no more need of and no process has mapped any more.",
    ),
    MetricSpec(
        "predictd_arena_limit_bytes", "gauge", (), "What all shared memory for tensors together may take."
    ),
    MetricSpec(
        "predictd_memory_limit_bytes",
        "gauge",
        (),
        "The limit, of an enclosing control group or of the machine, that leaves the least memory.",
    ),
    MetricSpec(
        "predictd_memory_headroom_bytes",
        "gauge",
        (),
        "What that limit leaves; page cache that nobody used lately counts as free.",
    ),
    MetricSpec(
        "predictd_plan_info",
        "gauge",
        ("role", "index", "cpus", "threads"),
        "Always 1; the labels are the CPUs that a process may use, and the threads that compute in it at once.",
    ),
    MetricSpec("predictd_plan_cpus", "gauge", ("role", "index"), "How many CPUs a process may use."),
    MetricSpec("predictd_ready", "gauge", (), "1 while /readyz says ready, else 0."),
    MetricSpec(
        "predictd_process_start_time_seconds",
        "gauge",
        (),
        "When the supervisor started, in seconds since the epoch.",
    ),
    MetricSpec(
        "predictd_gpu_memory_used_bytes", "gauge", ("gpu",), "Memory in use of a GPU that models run on."
    ),
    MetricSpec("predictd_gpu_memory_bytes", "gauge", ("gpu",), "All memory of such a GPU."),
    MetricSpec(
        "predictd_gpu_utilization_ratio",
        "gauge",
        ("gpu",),
        "Share of the last moments in which such a GPU ran something, from 0 to 1.",
    ),
    MetricSpec("predictd_gpu_temperature_celsius", "gauge", ("gpu",), "Temperature of such a GPU."),
    MetricSpec(
        "predictd_build_info",
        "gauge",
        ("version", "python", "onnxruntime"),
        "Always 1; the labels are the versions of what runs.",
    ),
)
