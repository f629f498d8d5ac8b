"""What comes back when a part of a daemon dies that nobody asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from predictd.client import (
    NO_RETRIES,
    Client,
    Request,
    UnavailableError,
)
from predictd.client.messages import build
from tests.fixtures.daemon import Daemon
from tests.fixtures.gated_daemon import HELD, gated, in_flight
from tests.fixtures.load import Connections
from tests.fixtures.processes import (
    X,
    assert_gone,
    complaints,
    family,
    scaled,
    serving,
    versioned,
)


def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with gated(tmp_path, "--frontends", "2", "--instances", "2") as (daemon, _):
        with Client(daemon.grpc, retries=NO_RETRIES) as client, ThreadPoolExecutor() as threads:
            # One worker is busy and does not listen to anything.
            call = threads.submit(client.predict, "gated", {"x": HELD}, deadline=60)
            in_flight(daemon, 1)
            pids = family(daemon)
            assert len(pids) == 5
            daemon.process.kill()
            assert_gone(pids, seconds=5)
            with pytest.raises(UnavailableError):
                call.result()
        daemon.wait(5)


def _until_answered(client: Client) -> float:
    """Ask until there is an answer; until then, UNAVAILABLE alone is right."""
    while True:
        with suppress(UnavailableError):
            return scaled(client, "double", deadline=30)


def test_a_front_end_that_is_killed_comes_back_and_its_clients_with_it(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with (
        serving(model, "--frontends", "2", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        for _ in range(2):
            assert scaled(client, "double") == 2.0
            before = daemon.pids("front ends")
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert _until_answered(client) == 2.0
            daemon.wait_until(
                lambda before=before: (  # type: ignore[misc]
                    daemon.get("/readyz") == (200, "ready\n")
                    and len(daemon.pids("front ends")) == 2
                    and not set(before) & set(daemon.pids("front ends"))
                ),
                30,
                "ready again",
            )
        assert daemon.wait_said("died: killed by SIGKILL", times=4) == 4
        assert len(complaints(daemon)) == 4


def test_a_front_end_that_dies_takes_only_its_own_clients_along(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})

    async def ask(daemon: Daemon) -> tuple[int, int]:
        async with Connections(daemon.grpc, 16) as connections:
            request = _double_request()
            await asyncio.gather(*(call(request) for call in connections.calls))
            os.kill(daemon.pids("front ends")[0], signal.SIGKILL)
            results = await asyncio.gather(
                *(call(request, timeout=30) for call in connections.calls), return_exceptions=True
            )
        failed = [result for result in results if isinstance(result, BaseException)]
        assert all(
            isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE
            for error in failed
        )
        return len(results) - len(failed), len(failed)

    with serving(model, "--frontends", "2", folder=tmp_path / "run") as daemon:
        answered, _ = asyncio.run(ask(daemon))
        # Of 16 connections, not all were made to one front end (but for one case in 32,768).
        assert answered > 0
        daemon.wait_until(lambda: "not ready" not in daemon.get("/readyz")[1], 30, "ready")
        daemon.wait_until(lambda: len(daemon.pids("front ends")) == 2, 30, "complete again")


def _double_request() -> bytes:
    return build(Request(model="double", inputs={"x": X})).SerializeToString()


def test_an_idle_worker_that_is_killed_comes_back_and_nobody_notices(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    with (
        serving(model, "--instances", "2", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        done = threading.Event()
        with ThreadPoolExecutor() as threads:
            asking = threads.submit(_ask_until, client, done)
            try:
                for restarts in (1, 2, 3):
                    os.kill(daemon.pids("workers")[0], signal.SIGKILL)
                    daemon.wait_until(
                        lambda restarts=restarts: (  # type: ignore[misc]
                            daemon.metric("predictd_worker_restarts_total") == restarts
                            and daemon.metric("predictd_worker_state", state="serving") == 2
                        ),
                        30,
                        "back",
                    )
                    assert daemon.get("/readyz") == (200, "ready\n")
            finally:
                done.set()
            assert asking.result() > 0
        daemon.wait_until(lambda: len(daemon.pids("workers")) == 2, 30, "as many as before")


def _ask_until(client: Client, done: threading.Event) -> int:
    number = 0
    while not done.is_set():
        assert scaled(client, "double") == 2.0
        number += 1
    return number
