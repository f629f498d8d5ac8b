"""A real Prometheus scrapes a real daemon that has work and trouble: no panel is empty, and alerts fire."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client.messages import Request, build
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.dashboard import as_sent, choices, expressions
from tests.fixtures.faulty_engine import ENGINE_ERROR, HANG, KILL
from tests.fixtures.open_loop import Raw, connect, offer
from tests.fixtures.processes import FAULTY, custom, versioned
from tests.fixtures.prometheus import Prometheus, needs, prometheus, wait_until

SLOW = "tests.fixtures.slow_engine:load"
HEALTHY_SECONDS = 30
TROUBLED_SECONDS = 90
# As much as a busy machine may need for its scrapes and evaluations.
RATE_INTERVAL = "30s"
FIRE_SECONDS = 60
# What says that the machine is slow, which it may be; and before the first scrape no target is known.
SLOWNESS = {
    "PredictdLatencyBurnFast",
    "PredictdLatencyBurnSlow",
    "PredictdFrontendsSlow",
    "PredictdTargetDown",
}
NEVER = {"PredictdWorkerGivenUp", "PredictdCertificateExpires"}
EXPECTED = {
    "PredictdAvailabilityBurnFast": {"model": "slow"},
    "PredictdLatencyBurnFast": {"model": "slow"},
    "PredictdLaneDown": {"model": "broken", "version": "1"},
    "PredictdProcessDied": {"pool": "double"},
    "PredictdCrashLoop": {"pool": "faulty"},
    "PredictdHangKills": {"role": "worker", "reason": "run_timeout"},
    "PredictdPoison": {"model": "faulty"},
    "PredictdQueueSaturated": {"model": "slow"},
    "PredictdRequestsRefused": {"model": "slow", "reason": "queue_size"},
    "PredictdDeadlineSheds": {"model": "slow"},
}

pytestmark = [pytest.mark.soak, needs("prometheus"), pytest.mark.timeout(400)]


def repository(folder: Path) -> Path:
    """Two models that work, one of them slowly, one that fails on demand, and one that cannot be loaded."""
    versioned(folder, "double", {1: 2.0}, "instances = 2\n")
    slow = custom(folder, "slow", SLOW, run_seconds=0.05) / "model.toml"
    slow.write_text("max_queue_size = 8\n" + slow.read_text())
    faulty = custom(folder, "faulty", FAULTY) / "model.toml"
    faulty.write_text('run_timeout = "1s"\n' + faulty.read_text())
    broken = folder / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"this is no model")
    return folder


def request(model: str, value: float, width: int = 1) -> bytes:
    x = np.full((1, width), value, np.float32)
    return build(Request(model=model, inputs={"x": x})).SerializeToString()


async def trouble(daemon: Daemon, calls: list[Raw]) -> None:
    """A worker is killed, requests fail, kill and hang their workers, and a model gets three times its capacity."""
    os.kill(daemon.pids("workers")[0], signal.SIGKILL)

    async def fail() -> None:
        for value in (KILL, HANG, *[ENGINE_ERROR] * 20):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await calls[0](request("faulty", value), timeout=60)
            assert error.value.code() is grpc.StatusCode.INTERNAL
            await asyncio.sleep(0.5)

    overload = offer(
        calls,
        [request("slow", 1.0)],
        rate=60,
        seconds=TROUBLED_SECONDS,
        # The wait in a full queue is 0.4 s: half of the requests are refused for their deadline, half for the queue.
        deadlines_seconds=[0.2, 30],
        seed=1,
    )
    found, _ = await asyncio.gather(overload, fail())
    assert found.codes[grpc.StatusCode.OK] > 0
    assert found.codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0


async def work(daemon: Daemon, server: Prometheus) -> None:
    """Two minutes: a sound model has work all the time, after a while there is trouble beside it."""
    channels, calls = connect(daemon.grpc)
    seconds = HEALTHY_SECONDS + TROUBLED_SECONDS
    numbers = [request("double", float(at), width=4) for at in range(16)]
    steady = asyncio.create_task(
        offer(calls, numbers, rate=100, seconds=seconds, deadlines_seconds=[30], seed=2)
    )
    await asyncio.sleep(HEALTHY_SECONDS)
    fired = await asyncio.to_thread(server.fired)
    assert {alert["alertname"] for alert in fired} - SLOWNESS == {"PredictdLaneDown"}
    await trouble(daemon, calls)
    codes = (await steady).codes
    assert set(codes) == {grpc.StatusCode.OK}, codes
    for channel in channels:
        await channel.close()


def test_panels_have_data_and_alerts_fire(tmp_path: Path) -> None:
    started = time.time()
    with (
        running(repository(tmp_path / "models"), folder=tmp_path / "run") as daemon,
        prometheus(tmp_path / "prometheus", daemon.http) as server,
    ):
        asyncio.run(work(daemon, server))
        wait_until(lambda: not _not_fired(server), FIRE_SECONDS, lambda: _not_fired(server))
        _alerts_say_what_they_mean(server)
        _rules_are_healthy(server)
        _panels_have_data(server, started)
        wait_until(lambda: "PredictdTargetDown" not in server.firing(), FIRE_SECONDS, server.firing)
        daemon.stop()
        wait_until(lambda: "PredictdTargetDown" in server.firing(), FIRE_SECONDS, server.firing)


def _not_fired(server: Prometheus) -> list[str]:
    fired = server.fired()
    return [
        name
        for name, labels in EXPECTED.items()
        if not any({"alertname": name, **labels}.items() <= alert.items() for alert in fired)
    ]


def _alerts_say_what_they_mean(server: Prometheus) -> None:
    fired = {alert["alertname"] for alert in server.fired()}
    print("fired:", ", ".join(sorted(fired)))
    assert not NEVER & fired
    for alert in (alert for alerts in server.firing().values() for alert in alerts):
        text = " ".join(alert["annotations"].values())
        assert "<" not in text and "{{" not in text, alert


def _rules_are_healthy(server: Prometheus) -> None:
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 30
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert server.query('max_over_time(up{job="predictd"}[1h])')[0]["value"][1] == "1"


def _panels_have_data(server: Prometheus, started: float) -> None:
    queries = {place: as_sent(expression, RATE_INTERVAL) for place, expression in expressions().items()}
    empty = {place for place, query in queries.items() if not server.over_time(query, started)}
    print(f"{len(queries) - len(empty)} of {len(queries)} queries have data; empty: {sorted(empty)}")
    # A daemon whose models run on CPUs has nothing to say of GPUs, one without TLS and tokens nothing of those, and
    # while it runs it is not started again.
    silent = ("annotation", "Certificate ends in", "Credentials that were not taken", "Requests by way")
    assert {place for place in empty if not place.startswith(silent) and "GPU" not in place} == set()
    for name, (series, label) in choices().items():
        found = server.get("series", **{"match[]": as_sent(series, RATE_INTERVAL), "start": started})
        assert {each[label] for each in found}, name
