"""`/metrics` of a daemon of several processes: exact counts, bounded labels, everything that the catalogue names."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from predictd.client import NO_RETRIES, Client, InvalidRequestError, NotFoundError
from predictd.server.launch.cpulist import parse_cpulist
from predictd.server.observe.catalogue import METRICS, MetricSpec
from tests.fixtures.daemon import Daemon
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.load import Connections, Load, drive, job
from tests.fixtures.processes import GATED, X, custom, scaled, serving, versioned

# A counter's family has no suffix in either format.
SPECS = {spec.name.removesuffix("_total") if spec.kind == "counter" else spec.name: spec for spec in METRICS}


def send(daemon: Daemon, number: int, *, first: int = 0, rows: int = 1, connections: int = 4) -> None:
    """So many requests over several connections, each with an input of its own; every answer must be right."""

    async def run() -> None:
        load = Load()
        arrays = [np.full((rows, 4), first + at, np.float32) for at in range(number)]
        jobs = [job("double", {"x": x}, {"y": x * 2}) for x in arrays]
        async with Connections(daemon.grpc, connections) as opened:
            await drive(opened, jobs, load=load, callers=32)
        load.assert_all_right()
        assert load.answered == number

    asyncio.run(run())


def families(daemon: Daemon) -> dict[str, Metric]:
    return {family.name: family for family in parse(daemon.get("/metrics")[1])}


def counted(daemon: Daemon) -> dict[str, float]:
    """Everything that counts requests, by metric."""
    names = [
        "predictd_requests_total",
        "predictd_request_duration_seconds_count",
        "predictd_queue_duration_seconds_count",
        "predictd_run_requests_total",
    ]
    return {name: daemon.metric(name, model="double", version="1") for name in names}


def wait_counted(daemon: Daemon, number: int) -> None:
    daemon.wait_until(
        lambda: set(counted(daemon).values()) == {number}, 30, f"counting {number}: {counted(daemon)}"
    )


def test_requests_are_counted_exactly_also_after_workers_and_front_ends_were_restarted(
    tmp_path: Path,
) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    options = ("--frontends", "2", "--instances", "2")
    with serving(model, *options, folder=tmp_path / "run") as daemon:
        send(daemon, 400, rows=2)
        wait_counted(daemon, 400)
        daemon.wait_metric("predictd_requests_total", 400, status="OK", api="predictd.v1")
        daemon.wait_metric("predictd_batch_rows_sum", 800, model="double")
        runs = daemon.metric("predictd_runs_total", model="double")
        daemon.wait_metric("predictd_compute_duration_seconds_count", runs, model="double")
        daemon.wait_metric("predictd_batch_rows_count", runs, model="double")
        assert 400 / 16 <= runs <= 400

        places = {"role": "worker", "index": "double/0"}
        spent = daemon.metric("predictd_process_cpu_seconds_total", **places)
        assert 0 < spent < 60
        os.kill(daemon.pids("workers")[0], signal.SIGKILL)
        daemon.wait_until(lambda: daemon.metric("predictd_worker_restarts_total") == 1, 30, "one restart")
        assert daemon.metric("predictd_process_cpu_seconds_total", **places) >= spent
        daemon.wait_until(
            lambda: daemon.metric("predictd_worker_state", state="serving") == 2, 30, "complete again"
        )
        send(daemon, 300, first=1000)
        wait_counted(daemon, 700)

        # What a front end has reported is never lost; the scrape before made both report everything.
        killed = daemon.pids("front ends")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        daemon.wait_until(
            lambda: (
                daemon.get("/readyz")[0] == 200
                and len(daemon.pids("front ends")) == 2
                and not set(killed) & set(daemon.pids("front ends"))
            ),
            30,
            "ready again",
        )
        assert set(counted(daemon).values()) == {700}
        daemon.wait_metric("predictd_frontend_restarts_total", 2)
        send(daemon, 100, first=2000)
        wait_counted(daemon, 800)


def test_a_dead_front_end_takes_at_most_what_it_had_not_reported(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with serving(model, folder=tmp_path / "run") as daemon:
        send(daemon, 100)
        daemon.wait_metric("predictd_requests_total", 100)
        send(daemon, 50, first=1000)
        os.kill(daemon.pids("front ends")[0], signal.SIGKILL)
        daemon.wait_metric("predictd_frontend_restarts_total", 1)
        daemon.wait_until(lambda: daemon.get("/readyz")[0] == 200, 30, "ready again")
        assert 100 <= daemon.metric("predictd_requests_total") <= 150
        # The worker lived on, and with it what it counted.
        daemon.wait_metric("predictd_run_requests_total", 150)


def test_names_that_clients_make_up_never_become_labels(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with serving(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, retries=NO_RETRIES) as client:
        scaled(client, "double")
        wait_counted(daemon, 1)
        before = len(daemon.get("/metrics")[1].splitlines())
        for number in range(30):
            with pytest.raises(NotFoundError):
                client.predict(f"made-up-{number}", {"x": X})
            with pytest.raises(NotFoundError):
                client.predict("double", {"x": X}, version=100 + number)
            with pytest.raises(NotFoundError):
                client.predict("double", {"x": X}, label=f"made-up-{number}")
            with pytest.raises(InvalidRequestError):
                client.predict("double", {f"made-up-{number}": X})
        daemon.wait_metric("predictd_requests_total", 90, status="NOT_FOUND", model="")
        daemon.wait_metric("predictd_requests_total", 30, status="INVALID_ARGUMENT", model="double")
        text = daemon.get("/metrics")[1]
        assert "made-up" not in text
        samples = [sample for family in parse(text) for sample in family.samples if "model" in sample.labels]
        assert {(sample.labels["model"], sample.labels["version"]) for sample in samples} == {
            ("double", "1"),
            ("", ""),
        }
        # Two new combinations of status and model and one that came for no model, whatever the number of requests.
        assert len(text.splitlines()) <= before + 3


def test_everything_in_the_catalogue_is_there_as_it_is_described(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    versioned(repository, "double", {1: 2.0})
    versioned(repository, "triple", {7: 3.0})
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        scaled(client, "double")
        assert scaled(client, "triple") == 3.0
        daemon.wait_metric("predictd_requests_total", 2)
        daemon.wait_metric("predictd_run_requests_total", 2)
        found = families(daemon)
        assert found.keys() == SPECS.keys()
        for name, spec in SPECS.items():
            assert found[name].type == spec.kind
            assert found[name].documentation == spec.help
            assert not re.search(r"_(us|ms|ns|micros|millis)(_|$)", name)
            _check_samples(spec, found[name])

        status, body, content_type = _get(daemon, "application/openmetrics-text; version=1.0.0")
        assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
        names = {family.name for family in parse_openmetrics(body)}  # type: ignore[no-untyped-call]
        assert names == SPECS.keys()


# What did not happen here, what is learned only from more runs, and what is there with TLS, tokens or C alone.
_MAY_BE_EMPTY = {
    "predictd_credentials_reload_failures_total",
    "predictd_dropped_total",
    "predictd_expected_run_seconds",
    "predictd_native_requests_total",
    "predictd_tls_certificate_expiry_timestamp_seconds",
}


def _check_samples(spec: MetricSpec, family: Metric) -> None:
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    on_gpus = spec.labels == ("gpu",)
    assert samples or on_gpus or spec.name in _MAY_BE_EMPTY, f"{spec.name} has no sample"
    for sample in samples:
        assert set(sample.labels) - {"le"} == set(spec.labels), sample
        assert sample.value >= 0
    if spec.kind == "histogram":
        _check_buckets(spec, family)


def _check_buckets(spec: MetricSpec, family: Metric) -> None:
    series: dict[tuple[str, ...], dict[float, float]] = {}
    counts: dict[tuple[str, ...], float] = {}
    for sample in family.samples:
        key = tuple(sample.labels[label] for label in spec.labels)
        if sample.name.endswith("_bucket"):
            series.setdefault(key, {})[float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_count"):
            counts[key] = sample.value
    assert series.keys() == counts.keys()
    for key, buckets in series.items():
        bounds = sorted(buckets)
        assert bounds[-1] == float("inf")
        if spec.name.endswith("_seconds"):
            assert bounds[0] == pytest.approx(10e-6)
            assert bounds[-2] == pytest.approx(60.0)
        cumulated = [buckets[bound] for bound in bounds]
        assert cumulated == sorted(cumulated)
        assert cumulated[-1] == counts[key]
        # What front ends measure of themselves has no labels, and is of no request.
        assert counts[key] == 1 or not spec.labels


def _get(daemon: Daemon, accept: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{daemon.http}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode(), answer.headers["Content-Type"]


def test_gauges_show_what_waits_and_what_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    folder = custom(tmp_path / "models", "gated", GATED, run_gate=gate)
    toml = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text("max_batch_size = 1\n" + toml)
    started = time.time()
    with serving(folder, "--frontends", "2", folder=tmp_path / "run") as daemon:
        with Client(daemon.grpc, retries=NO_RETRIES) as client, ThreadPoolExecutor(8) as threads:
            x = np.full((1, 1), HOLD, np.float32)
            calls = [threads.submit(client.predict, "gated", {"x": x}, deadline=90) for _ in range(8)]
            daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 8, 30, "8 in flight")
            # One runs; the others wait where their number can be seen.
            daemon.wait_until(
                lambda: daemon.metric("predictd_queue_depth", pool="gated") == 7, 30, "7 in the queue"
            )
            daemon.wait_metric("predictd_waiting_requests", 7, model="gated")
            assert daemon.metric("predictd_queue_fill_ratio", model="gated") == pytest.approx(7 / 1024)
            assert 0 < daemon.metric("predictd_oldest_wait_seconds", model="gated") < 90
            gate.touch()
            for call in calls:
                call.result()
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 30, "idle")
        daemon.wait_metric("predictd_queue_depth", 0)
        daemon.wait_metric("predictd_oldest_wait_seconds", 0)
        assert daemon.metric("predictd_queue_capacity", pool="gated", priority="1") >= 1024
        assert daemon.metric("predictd_ready") == 1
        assert daemon.metric("predictd_lane_state", model="gated", version="1", state="READY") == 1
        assert daemon.metric("predictd_lane_state") == 1
        assert daemon.metric("predictd_worker_state", pool="gated", worker="0", state="serving") == 1
        assert daemon.metric("predictd_worker_state") == 1
        assert daemon.metric("predictd_worker_restarts_total") == 0
        assert 0 < daemon.metric("predictd_load_duration_seconds", model="gated") < 60
        assert started - 60 < daemon.metric("predictd_process_start_time_seconds") < time.time()
        resident = families(daemon)["predictd_process_resident_bytes"].samples
        assert {(sample.labels["role"], sample.labels["index"]) for sample in resident} == {
            ("supervisor", "0"),
            ("frontend", "0"),
            ("frontend", "1"),
            ("worker", "gated/0"),
        }
        assert all(10e6 < sample.value < 1e9 for sample in resident)
        anonymous = {
            sample.labels["index"]: sample.value
            for sample in families(daemon)["predictd_process_anonymous_bytes"].samples
            if sample.labels["role"] == "worker"
        }
        assert anonymous.keys() == {"gated/0"}
        assert 5e6 < anonymous["gated/0"] < daemon.metric("predictd_process_resident_bytes", role="worker")
        plans = families(daemon)["predictd_plan_info"].samples
        assert {(plan.labels["role"], plan.labels["index"]) for plan in plans} == {
            ("frontend", "0"),
            ("frontend", "1"),
            ("worker", "gated/0"),
        }
        for plan in plans:
            cpus = parse_cpulist(plan.labels["cpus"])
            assert set(cpus) <= os.sched_getaffinity(0)
            where = {"role": plan.labels["role"], "index": plan.labels["index"]}
            assert daemon.metric("predictd_plan_cpus", **where) == len(cpus) >= int(plan.labels["threads"])
        assert (
            0 < daemon.metric("predictd_memory_headroom_bytes") < daemon.metric("predictd_memory_limit_bytes")
        )
        assert 0 < daemon.metric("predictd_arena_bytes") <= daemon.metric("predictd_arena_limit_bytes"), (
            "the request and its answer lie in shared memory"
        )
        (build,) = families(daemon)["predictd_build_info"].samples
        assert build.value == 1
        assert all(re.fullmatch(r"\d+\.\d+.*", version) for version in build.labels.values())


def test_scrapes_while_processes_die_are_answered(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with serving(model, "--frontends", "2", "--instances", "2", folder=tmp_path / "run") as daemon:
        for role in ("workers", "front ends"):
            os.kill(daemon.pids(role)[0], signal.SIGKILL)
            for _ in range(20):
                status, text = daemon.get("/metrics")
                assert status == 200
                assert {family.name for family in parse(text)} == SPECS.keys()
        daemon.wait_until(lambda: daemon.metric("predictd_worker_restarts_total") == 1, 30, "one restart")
