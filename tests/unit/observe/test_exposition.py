from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.buckets import DURATION_BUCKETS_SECONDS
from predictd.server.observe.catalogue import METRICS, MetricSpec
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.observe.exposition import render
from predictd.server.observe.gauges import (
    BuildInfo,
    Gauges,
    GpuGauge,
    LaneGauge,
    MemoryGauge,
    PlanGauge,
    ProcessGauge,
    QueueGauge,
    Readiness,
    WorkerGauge,
    build_info,
)
from predictd.server.observe.processes import Memory
from predictd.server.observe.recorder import FrontendRecorder, WorkerRecorder
from predictd.server.observe.samples import HISTOGRAMS, NUMBERS

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

BUILD = BuildInfo("0.1.0", "3.11.7", "1.23.2")


def gauges(*lanes: LaneGauge, ready: bool = True) -> Gauges:
    return Gauges(
        readiness=Readiness(ready, lanes),
        build=BUILD,
        start_unix_seconds=1_700_000_000.5,
        queues=(QueueGauge("resnet", 0, 17, 1024), QueueGauge("resnet", 1, 0, 1024)),
        in_flight={0: 3, 1: 0},
        workers=(WorkerGauge("resnet", 0, "ready"), WorkerGauge("resnet", 1, "starting")),
        worker_states=("starting", "ready", "backoff"),
        worker_restarts={"resnet": 2},
        kills={("worker", "silent"): 3, ("frontend", "stopped"): 0},
        given_back_bytes={("worker", "resnet/0"): 4096},
        processes=(
            ProcessGauge("supervisor", "0", Memory(30_000_000, 20_000_000), 1.5),
            ProcessGauge("worker", "resnet/0", Memory(90_000_000, 70_000_000), 60.25, arena_bytes=1 << 20),
            ProcessGauge("worker", "resnet/1", None, 2.0, arena_bytes=0),
        ),
        frontend_restarts={0: 0, 1: 4},
        plans=(PlanGauge("worker", "resnet/0", "0-2,7", 4, 2),),
        memory=MemoryGauge(limit_bytes=1 << 30, headroom_bytes=1 << 29, arena_limit_bytes=1 << 28),
        gpus=(GpuGauge("0000:65:00.0", 1 << 30, 1 << 33, 0.4, 61),),
        certificate_expiry_unix_seconds=1_800_000_000.0,
        credential_failures={"certificate": 2, "tokens": 0},
    )


def scrape(aggregate: Aggregate, snapshot: Gauges, accept: str = "") -> Series:
    rendered = render(aggregate, snapshot, accept)
    parse = parse_openmetrics if rendered.content_type.startswith("application/openmetrics") else parse_plain
    series: Series = {}
    for family in parse(rendered.body.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in series, f"{key} twice"
            series[key] = sample.value
    return series


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def busy() -> Aggregate:
    aggregate = Aggregate()
    aggregate.name_lane(1, "resnet", 3)
    aggregate.name_lane(2, "idle", 1)
    frontend, worker = FrontendRecorder(), WorkerRecorder()
    frontend.answered(1, "kserve", "OK", 1_500_000, 15_000, 1_000_000, 4)
    frontend.answered(1, "kserve", "OK", 70_000_000_000, 10_000, 1_000_000, 4)
    frontend.answered(1, "predictd", "INTERNAL", 2_000_000, 40_000, 900_000, 1)
    frontend.failed(1, "kserve", "RESOURCE_EXHAUSTED", 9_000)
    frontend.failed(None, "kserve", "NOT_FOUND", 9_000)
    frontend.retried(1)
    frontend.accepted(1, "kserve")
    frontend.shed(1, "expected_wait")
    frontend.refused("role")
    frontend.went({"hot": 5, "shape": 1})
    frontend.waits(1, 250_000_000)
    frontend.poisoned(1)
    worker.ran(1, 8, 2, 1_000_000)
    worker.ran(1, 5000, 1, 900_000)
    worker.expects(1, {4: 1_000_000})
    worker.dropped(1, "expired", 4)
    aggregate.add_frontend(frontend.take(), 1)
    aggregate.add_worker(worker.take())
    return aggregate


RESNET = {"model": "resnet", "version": "3"}
IDLE = {"model": "idle", "version": "1"}


def test_the_catalogue_and_the_readers_name_the_same_metrics() -> None:
    kinds = {spec.name: spec.kind for spec in METRICS}
    assert len(kinds) == len(METRICS)
    assert {name for name, kind in kinds.items() if kind == "histogram"} == set(HISTOGRAMS)
    assert {name for name, kind in kinds.items() if kind != "histogram"} == set(NUMBERS)


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_metric_names_follow_the_conventions(spec: MetricSpec) -> None:
    assert spec.name.startswith("predictd_")
    assert (spec.kind == "counter") == spec.name.endswith("_total")
    assert not spec.name.endswith(("_ms", "_us", "_ns"))
    assert spec.help.endswith(".")
    assert "\n" not in spec.help
    assert len(set(spec.labels)) == len(spec.labels)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_every_metric_of_the_catalogue_is_exposed_with_its_labels(accept: str) -> None:
    rendered = render(busy(), gauges(LaneGauge("resnet", 3, "READY", "", 1.0, (8,))), accept)
    parse = parse_openmetrics if accept else parse_plain
    families = {family.name: family for family in parse(rendered.body.decode())}
    for spec in METRICS:
        family = families.pop(spec.name.removesuffix("_total"))
        assert family.type == spec.kind
        assert family.documentation == spec.help
        assert family.samples, spec.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels)
    assert not families


def test_requests_are_counted_by_model_version_api_and_status() -> None:
    series = scrape(busy(), gauges())
    name = "predictd_requests_total"
    assert value(series, name, **RESNET, api="kserve", status="OK") == 2
    assert value(series, name, **RESNET, api="predictd", status="INTERNAL") == 1
    assert value(series, name, **RESNET, api="kserve", status="RESOURCE_EXHAUSTED") == 1
    assert value(series, name, model="", version="", api="kserve", status="NOT_FOUND") == 1


def test_callers_that_are_not_let_in_are_counted_by_reason_and_no_certificate_is_no_series() -> None:
    aggregate = busy()
    aggregate.refusals["http", "no_credentials"] += 3
    series = scrape(aggregate, gauges())
    refused = "predictd_refused_calls_total"
    assert value(series, refused, protocol="grpc", reason="role") == 1
    assert value(series, refused, protocol="http", reason="no_credentials") == 3
    assert value(series, refused, protocol="http", reason="model") == 0
    expiry = "predictd_tls_certificate_expiry_timestamp_seconds"
    assert value(series, expiry) == 1_800_000_000
    assert value(series, "predictd_credentials_reload_failures_total", what="certificate") == 2
    without = scrape(aggregate, dataclasses.replace(gauges(), certificate_expiry_unix_seconds=None))
    assert [name for name, _ in without if name == expiry] == []


def test_what_a_front_end_in_c_answers_is_counted_by_way_and_without_one_there_is_no_series() -> None:
    name = "predictd_native_requests_total"
    series = scrape(busy(), gauges())
    assert [value(series, name, way=way) for way in ("hot", "shape")] == [5, 1]
    assert [each for each, _ in scrape(Aggregate(), gauges()) if each == name] == []


def test_kills_are_counted_by_role_and_reason() -> None:
    series = scrape(busy(), gauges())
    assert value(series, "predictd_hang_kills_total", role="worker", reason="silent") == 3
    assert value(series, "predictd_hang_kills_total", role="frontend", reason="stopped") == 0


def test_what_holds_up_front_ends_is_added_up() -> None:
    aggregate = Aggregate()
    for lag_ns in (2_500_000, 1_000_000):
        frontend = FrontendRecorder()
        frontend.loop_lag.add(lag_ns)
        frontend.gc_pauses.add(7_000_000_000)
        aggregate.add_frontend(frontend.take(), 1)
        aggregate.add_frontend(frontend.take(), 2)
    series = scrape(aggregate, gauges())
    lag, pause = "predictd_frontend_loop_lag_seconds", "predictd_frontend_gc_pause_seconds"
    assert value(series, f"{lag}_count") == value(series, f"{pause}_count") == 2
    assert value(series, f"{lag}_sum") == pytest.approx(0.0035)
    assert value(series, f"{pause}_sum") == pytest.approx(14)
    assert value(series, f"{lag}_bucket", le="0.001") == 1
    assert value(series, f"{lag}_bucket", le="0.003") == 2


def test_request_durations_are_those_of_good_answers() -> None:
    series = scrape(busy(), gauges())
    name = "predictd_request_duration_seconds"
    labels = {**RESNET, "api": "kserve"}
    assert value(series, f"{name}_count", **labels) == 2
    assert value(series, f"{name}_sum", **labels) == pytest.approx(70.0015)
    assert value(series, f"{name}_bucket", **labels, le="0.001") == 0
    assert value(series, f"{name}_bucket", **labels, le="0.002") == 1
    assert value(series, f"{name}_bucket", **labels, le="60.0") == 1
    assert value(series, f"{name}_bucket", **labels, le="+Inf") == 2
    assert not [labels for key, labels in series if key.startswith(name) and ("api", "predictd") in labels]
    bounds = [dict(labels)["le"] for key, labels in series if key == f"{name}_bucket"]
    assert [float(bound) for bound in bounds] == [*DURATION_BUCKETS_SECONDS, float("inf")]


def test_queue_and_compute_durations_and_rows() -> None:
    series = scrape(busy(), gauges())
    # Every request that was run has waited, whatever became of it: three of them, over both APIs.
    assert value(series, "predictd_queue_duration_seconds_count", **RESNET) == 3
    assert value(series, "predictd_queue_duration_seconds_sum", **RESNET) == pytest.approx(65e-6)
    assert value(series, "predictd_queue_duration_seconds_bucket", **RESNET, le="1e-05") == 1
    assert value(series, "predictd_queue_duration_seconds_bucket", **RESNET, le="2e-05") == 2
    assert value(series, "predictd_compute_duration_seconds_count", **RESNET) == 2
    assert value(series, "predictd_compute_duration_seconds_sum", **RESNET) == pytest.approx(0.0019)
    assert value(series, "predictd_batch_rows_sum", **RESNET) == 5008
    assert value(series, "predictd_batch_rows_bucket", **RESNET, le="4.0") == 0
    assert value(series, "predictd_batch_rows_bucket", **RESNET, le="8.0") == 1
    assert value(series, "predictd_batch_rows_bucket", **RESNET, le="4096.0") == 1
    assert value(series, "predictd_batch_rows_bucket", **RESNET, le="+Inf") == 2


def test_counters_start_at_zero_and_histograms_of_idle_models_are_left_out() -> None:
    series = scrape(busy(), gauges())
    for name in ("runs", "run_requests", "retries", "poison"):
        assert value(series, f"predictd_{name}_total", **IDLE) == 0
    assert value(series, "predictd_dropped_total", **IDLE, reason="expired") == 0
    assert value(series, "predictd_dropped_total", **IDLE, reason="cancelled") == 0
    assert value(series, "predictd_dropped_total", **RESNET, reason="expired") == 4
    assert value(series, "predictd_shed_total", **RESNET, reason="expected_wait") == 1
    assert value(series, "predictd_shed_total", **IDLE, reason="queue_size") == 0
    assert value(series, "predictd_expected_wait_seconds", **RESNET) == 0.25
    assert value(series, "predictd_expected_run_seconds", **RESNET, rows="4") == 0.001
    assert value(series, "predictd_runs_total", **RESNET) == 2
    assert value(series, "predictd_run_requests_total", **RESNET) == 3
    assert value(series, "predictd_retries_total", **RESNET) == 1
    assert value(series, "predictd_poison_total", **RESNET) == 1
    assert not [key for key, labels in series if key.endswith("_bucket") and ("model", "idle") in labels]


def test_gauges_show_the_snapshot() -> None:
    series = scrape(Aggregate(), gauges(LaneGauge("resnet", 3, "READY", load_seconds=1.25)))
    assert value(series, "predictd_queue_depth", pool="resnet", priority="0") == 17
    assert value(series, "predictd_in_flight", frontend="0") == 3
    assert value(series, "predictd_worker_restarts_total", pool="resnet") == 2
    assert value(series, "predictd_worker_state", pool="resnet", worker="0", state="ready") == 1
    assert value(series, "predictd_worker_state", pool="resnet", worker="0", state="backoff") == 0
    assert value(series, "predictd_worker_state", pool="resnet", worker="1", state="starting") == 1
    assert value(series, "predictd_lane_state", **RESNET, state="READY") == 1
    assert value(series, "predictd_lane_state", **RESNET, state="FAILED") == 0
    assert value(series, "predictd_load_duration_seconds", **RESNET) == 1.25
    assert value(series, "predictd_process_resident_bytes", role="supervisor", index="0") == 30_000_000
    assert value(series, "predictd_arena_bytes", role="worker", index="resnet/0") == 1 << 20
    assert value(series, "predictd_gpu_memory_used_bytes", gpu="0000:65:00.0") == 1 << 30
    assert value(series, "predictd_gpu_memory_bytes", gpu="0000:65:00.0") == 1 << 33
    assert value(series, "predictd_gpu_utilization_ratio", gpu="0000:65:00.0") == 0.4
    assert value(series, "predictd_gpu_temperature_celsius", gpu="0000:65:00.0") == 61
    assert value(series, "predictd_process_start_time_seconds") == 1_700_000_000.5
    assert value(series, "predictd_build_info", version="0.1.0", python="3.11.7", onnxruntime="1.23.2") == 1
    assert value(series, "predictd_ready") == 1
    assert value(scrape(Aggregate(), gauges(ready=False)), "predictd_ready") == 0
    gone = ("predictd_process_resident_bytes", (("index", "resnet/1"), ("role", "worker")))
    assert gone not in series
    assert value(series, "predictd_process_anonymous_bytes", role="worker", index="resnet/0") == 70_000_000
    assert value(series, "predictd_process_cpu_seconds_total", role="worker", index="resnet/0") == 60.25
    # Its process is gone, what it took is not.
    assert value(series, "predictd_process_cpu_seconds_total", role="worker", index="resnet/1") == 2
    assert value(series, "predictd_queue_capacity", pool="resnet", priority="1") == 1024
    assert value(series, "predictd_frontend_restarts_total", frontend="1") == 4
    plan = {"role": "worker", "index": "resnet/0"}
    assert value(series, "predictd_plan_info", **plan, cpus="0-2,7", threads="2") == 1
    assert value(series, "predictd_plan_cpus", **plan) == 4
    assert value(series, "predictd_memory_limit_bytes") == 1 << 30
    assert value(series, "predictd_memory_headroom_bytes") == 1 << 29
    assert value(series, "predictd_arena_limit_bytes") == 1 << 28


def test_of_memory_that_the_kernel_does_not_show_nothing_is_said() -> None:
    series = scrape(Aggregate(), dataclasses.replace(gauges(), memory=None))
    assert not {name for name, _ in series} & {"predictd_memory_limit_bytes", "predictd_arena_limit_bytes"}


def test_what_waits_in_all_front_ends_is_added_up() -> None:
    aggregate = busy()
    aggregate.waits(1, [WaitingSeries(1, 1, 4, 250_000_000), WaitingSeries(1, 2, 10, 100_000_000)])
    aggregate.waits(2, [WaitingSeries(1, 1, 5, 3_000_000_000), WaitingSeries(99, 1, 6, 5_000_000_000)])
    lanes = (LaneGauge("resnet", 3, "READY", queue_limits=(10, 100)), LaneGauge("idle", 1, "READY"))

    def of(name: str, labels: dict[str, str]) -> float:
        return value(scrape(aggregate, gauges(*lanes)), f"predictd_{name}", **labels)

    assert of("waiting_requests", RESNET) == 19
    assert of("oldest_wait_seconds", RESNET) == 3
    assert of("queue_fill_ratio", RESNET) == 0.9
    assert of("waiting_requests", IDLE) == of("oldest_wait_seconds", IDLE) == 0
    aggregate.frontend_gone(2)
    assert of("oldest_wait_seconds", RESNET) == 0.25
    assert of("queue_fill_ratio", RESNET) == 0.4
    aggregate.waits(1, [])
    assert of("waiting_requests", RESNET) == of("queue_fill_ratio", RESNET) == 0


def test_what_is_neither_waiting_nor_the_engine_is_overhead() -> None:
    aggregate = Aggregate()
    aggregate.name_lane(1, "resnet", 3)
    frontend = FrontendRecorder()
    frontend.answered(1, "kserve", "OK", 1_500_000, 200_000, 1_000_000, 4)
    frontend.answered(1, "kserve", "OK", 2_500_000, 1_200_000, 1_000_000, 4)
    frontend.failed(1, "kserve", "RESOURCE_EXHAUSTED", 9_000)
    aggregate.add_frontend(frontend.take(), 1)
    name = "predictd_request_overhead_seconds_total"
    assert value(scrape(aggregate, gauges()), name, **RESNET, api="kserve") == pytest.approx(600e-6)


def test_two_lanes_of_one_model_version_give_one_series() -> None:
    old = LaneGauge("resnet", 3, "UNLOADING", load_seconds=9.0)
    new = LaneGauge("resnet", 3, "READY", load_seconds=2.0)
    series = scrape(Aggregate(), gauges(old, new))
    assert value(series, "predictd_lane_state", **RESNET, state="READY") == 1
    assert value(series, "predictd_lane_state", **RESNET, state="UNLOADING") == 1
    assert value(series, "predictd_lane_state", **RESNET, state="LOADING") == 0
    assert value(series, "predictd_load_duration_seconds", **RESNET) == 2.0


def test_awkward_names_are_escaped_and_cannot_spoil_a_scrape() -> None:
    aggregate = Aggregate()
    name = 'a"b\\c\nd{e="f"}'
    aggregate.name_lane(1, name, 1)
    series = scrape(aggregate, gauges(LaneGauge("caf\udce9", 1, "FAILED")))
    assert value(series, "predictd_runs_total", model=name, version="1") == 0
    assert value(series, "predictd_lane_state", model="caf\\udce9", version="1", state="FAILED") == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text"),
        ("application/openmetrics-text; version=one", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.0.0.é", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=" + "9" * 5000, "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=", "text/plain; version=0.0.4; charset=utf-8"),
        (";;,,=;", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, content_type: str) -> None:
    rendered = render(busy(), gauges(), accept)
    assert rendered.content_type.startswith(content_type)
    assert rendered.body.endswith(b"# EOF\n") == ("openmetrics" in content_type)


def test_both_formats_say_the_same() -> None:
    plain = scrape(busy(), gauges())
    assert scrape(busy(), gauges(), "application/openmetrics-text; version=1.0.0") == plain


def test_build_info_names_what_is_installed() -> None:
    build = build_info()
    assert build.python == platform.python_version()
    assert build.version
    assert build.onnxruntime


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("recorder", "numpy grpc onnxruntime prometheus_client asyncio h11"),
        ("aggregate", "numpy grpc onnxruntime prometheus_client asyncio h11"),
        ("logs", "numpy grpc onnxruntime prometheus_client asyncio h11"),
        ("routes", "numpy grpc onnxruntime prometheus_client"),
        ("exposition", "numpy grpc onnxruntime"),
    ],
)
def test_modules_import_nothing_heavy(module: str, banned: str) -> None:
    code = (
        f"import predictd.server.observe.{module}, sys; assert not set({banned.split()!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
