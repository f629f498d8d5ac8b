"""How a daemon ends that is asked to: signals and drains."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    PredictdError,
    Prediction,
    Request,
    UnavailableError,
)
from tests.fixtures.daemon import Daemon
from tests.fixtures.gated_daemon import HELD, gated, held, in_flight
from tests.fixtures.processes import (
    GATED,
    NOT_SERVING,
    SERVING,
    Health,
    X,
    assert_gone,
    assert_tidy,
    custom,
    family,
    log,
    scaled,
    serving,
    versioned,
)


def draining(daemon: Daemon) -> None:
    """Wait until the supervisor has taken notice of the first signal."""
    daemon.wait_until(lambda: "draining" in daemon.output(), 30, "draining")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    versioned(tmp_path, "double", {1: 2.0})
    with serving(tmp_path / "double", "--frontends", "2", folder=tmp_path / "run") as daemon:
        pids = family(daemon)
        assert len(pids) == 4
        # The whole group, as a terminal does it.
        os.killpg(daemon.process.pid, number)
        assert daemon.wait(20) == 0
        assert_gone(pids)
        assert [event.message for event in log(daemon)][-2:] == [
            "draining: finishing what was accepted",
            "stopped",
        ]


@pytest.mark.parametrize("frontends", ["1", "2"])
def test_everything_that_was_accepted_is_answered_before_the_end(frontends: str, tmp_path: Path) -> None:
    unary, streamed = 200, 40

    async def ask(daemon: Daemon, gate: Path) -> int:
        clients = [AsyncClient(daemon.grpc, deadline=90) for _ in range(4)]
        calls = [
            asyncio.create_task(clients[row % 4].predict("gated", {"x": held(row)})) for row in range(unary)
        ]
        stream = asyncio.create_task(_stream(clients[0], streamed))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, in_flight, daemon, unary + streamed)
        with Health(daemon.grpc) as health:
            watch = health.watch()
            assert await loop.run_in_executor(None, next, watch) == SERVING
            os.killpg(daemon.process.pid, signal.SIGINT)
            assert await loop.run_in_executor(None, next, watch) == NOT_SERVING
            with pytest.raises(grpc.RpcError):
                await loop.run_in_executor(None, lambda: list(watch))
        # Now nothing is accepted any more, neither from those who are connected nor from others.
        for client in (*clients, AsyncClient(daemon.grpc, retries=NO_RETRIES)):
            await _until_unavailable(client)
            if client not in clients:
                await client.close()
        assert daemon.get("/readyz") == (503, "not ready\ndraining\n")
        await loop.run_in_executor(None, gate.touch)
        for row, prediction in enumerate(await asyncio.gather(*calls)):
            np.testing.assert_array_equal(prediction.outputs["y"], held(row))
        assert sorted(await stream) == list(range(streamed))
        for client in clients:
            await client.close()
        return daemon.wait(30)

    with gated(tmp_path, "--frontends", frontends, "--drain-timeout", "1m") as (daemon, gate):
        pids = family(daemon)
        assert asyncio.run(ask(daemon, gate)) == 0
        assert_gone(pids)


async def _until_unavailable(client: AsyncClient) -> None:
    """Wait until a client's calls are not accepted any more.

    gRPC's server cancels a call that arrives in the very moment in which it says goodbye to the connection. One that
    comes before its front end, or its connection, has heard of the end is accepted, and waits with the others.
    """
    code = grpc.StatusCode.CANCELLED
    while code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        with pytest.raises(PredictdError) as refusal:
            await client.predict("gated", {"x": np.zeros((1, 1), np.float32)}, deadline=10)
        code = refusal.value.code
    assert code is grpc.StatusCode.UNAVAILABLE


async def _stream(client: AsyncClient, number: int) -> list[int]:
    """Rows of the answers on a stream that ends when the daemon does."""
    asked = asyncio.Event()

    async def requests() -> AsyncIterator[Request]:
        for row in range(number):
            yield Request(model="gated", inputs={"x": held(row)})
        await asked.wait()

    rows = []

    async def read() -> None:
        async for _, answer in client.predict_stream(requests(), deadline=90):
            assert isinstance(answer, Prediction)
            rows.append(int(answer.outputs["y"][1, 0]))

    with pytest.raises(UnavailableError, match="requests without an answer were not accepted"):
        await read()
    return rows


async def _closed_loop(daemon: Daemon, callers: int) -> Counter[str]:
    """Callers that ask until they are refused, and a SIGTERM while they do. Every answer must be right."""
    outcomes: Counter[str] = Counter()

    async def caller(client: AsyncClient, number: int) -> None:
        x = np.full((1, 4), number, np.float32)
        while True:
            try:
                prediction = await client.predict("double", {"x": x}, deadline=30)
            except PredictdError as error:
                outcomes[error.code.name] += 1
                return
            np.testing.assert_array_equal(prediction.outputs["y"], x * 2)
            outcomes["OK"] += 1
            if outcomes["OK"] == 1000:
                daemon.signal(signal.SIGTERM)

    clients = [AsyncClient(daemon.grpc, retries=NO_RETRIES) for _ in range(4)]
    await asyncio.gather(*(caller(clients[number % 4], number) for number in range(callers)))
    for client in clients:
        await client.close()
    return outcomes


def test_a_stop_under_load_answers_right_or_says_unavailable(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    seen = []
    for _ in range(3):
        with serving(model, "--frontends", "2", folder=tmp_path / "run") as daemon:
            pids = family(daemon)
            outcomes = asyncio.run(_closed_loop(daemon, 128))
            assert daemon.wait(30) == 0
            assert_gone(pids)
        assert outcomes["OK"] >= 1000
        assert outcomes.keys() <= {"OK", "UNAVAILABLE", "CANCELLED"}
        assert outcomes["UNAVAILABLE"] + outcomes["CANCELLED"] == 128
        # gRPC's server cancels what arrives in the moment in which it stops, and clients do not retry CANCELLED. Only
        # on a machine that starves the clients for so long as the front ends wait for them does that happen here.
        if not outcomes["CANCELLED"]:
            return
        seen.append(outcomes)
    raise AssertionError(f"requests were cancelled each time: {seen}")


def test_open_streams_do_not_hold_up_the_end(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})

    async def hold(daemon: Daemon) -> int:
        never = asyncio.Event()

        async def requests() -> AsyncIterator[Request]:
            yield Request(model="double", inputs={"x": X})
            await never.wait()

        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            stream = client.predict_stream(requests(), deadline=90)
            _, answer = await anext(stream)
            assert isinstance(answer, Prediction)
            with Health(daemon.grpc) as health:
                watch = health.watch()
                assert next(watch) == SERVING
                daemon.signal(signal.SIGTERM)
                with pytest.raises(UnavailableError, match="shutting down"):
                    await anext(stream)
                # Well before the drain time-out of 30 s.
                return await asyncio.get_running_loop().run_in_executor(None, daemon.wait, 15)

    with serving(model, folder=tmp_path / "run") as daemon:
        assert asyncio.run(hold(daemon)) == 0


def test_a_lame_duck_serves_on_while_health_says_otherwise(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with serving(model, "--lame-duck", "6s", folder=tmp_path / "run") as daemon:
        with Health(daemon.grpc) as health, Client(daemon.grpc, retries=NO_RETRIES) as client:
            watch = health.watch()
            assert next(watch) == SERVING
            daemon.signal(signal.SIGTERM)
            assert next(watch) == NOT_SERVING
            assert daemon.get("/readyz") == (503, "not ready\ndraining\n")
            assert daemon.get("/healthz") == (200, "ok\n")
            assert health.check("double") == NOT_SERVING
            assert scaled(client, "double") == 2.0
        assert daemon.wait(20) == 0


def test_a_drain_that_takes_too_long_is_cut_off_and_says_so(tmp_path: Path) -> None:
    with (
        gated(tmp_path, "--drain-timeout", "1s") as (daemon, _),
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        with ThreadPoolExecutor() as threads:
            call = threads.submit(client.predict, "gated", {"x": HELD}, deadline=60)
            in_flight(daemon, 1)
            pids = family(daemon)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(15) == 1
            with pytest.raises(UnavailableError):
                call.result()
        assert_gone(pids)
        assert "leaving with requests in flight" in [event.message for event in log(daemon)]


def test_a_second_signal_ends_the_drain_at_once(tmp_path: Path) -> None:
    with (
        gated(tmp_path) as (daemon, _),
        Client(daemon.grpc, retries=NO_RETRIES) as client,
        ThreadPoolExecutor() as threads,
    ):
        call = threads.submit(client.predict, "gated", {"x": HELD}, deadline=60)
        in_flight(daemon, 1)
        pids = family(daemon)
        daemon.signal(signal.SIGTERM)
        draining(daemon)
        daemon.signal(signal.SIGTERM)
        # Well before the drain time-out of 30 s.
        assert daemon.wait(10) == 1
        with pytest.raises(UnavailableError):
            call.result()
        assert_gone(pids)


def test_a_run_that_nobody_waits_for_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with gated(tmp_path) as (daemon, _), Client(daemon.grpc, retries=NO_RETRIES) as client:
        with ThreadPoolExecutor() as threads:
            call = threads.submit(client.predict, "gated", {"x": HELD}, deadline=60)
            in_flight(daemon, 1)
            client.close()
            with pytest.raises(PredictdError):
                call.result()
        pids = family(daemon)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) == 0
        assert_gone(pids)


def test_a_daemon_that_still_loads_can_be_stopped(tmp_path: Path) -> None:
    model = custom(tmp_path / "models", "slow", GATED, load_gate=tmp_path / "never")
    daemon = Daemon(model, folder=tmp_path / "run")
    try:
        # Its children run, or are about to.
        daemon.wait_until(lambda: daemon.pids("workers"), 30, "loading")
        pids = family(daemon)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) == 0
        assert_gone(pids)
        assert_tidy(daemon, tmp_path / "run")
        assert not (tmp_path / "run" / "ready.json").exists()
    finally:
        daemon.kill()


def test_a_daemon_can_be_stopped_before_its_children_have_said_a_word(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    daemon = Daemon(model, folder=tmp_path / "run")
    try:
        # The plan is printed right before they are started.
        daemon.wait_until(lambda: "because" in daemon.output(), 30, "planned")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) in {0, -signal.SIGTERM}
        assert_tidy(daemon, tmp_path / "run")
    finally:
        daemon.kill()


def test_a_hang_up_is_answered_with_a_line_and_serves_on(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with serving(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, retries=NO_RETRIES) as client:
        daemon.signal(signal.SIGHUP)
        daemon.wait_until(lambda: "SIGHUP" in daemon.output(), 20, "aware of the signal")
        assert scaled(client, "double") == 2.0
