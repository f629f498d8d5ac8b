"""Clients that stall, send half a message, cancel, disappear or do not read: others hardly notice, nothing is left."""

from __future__ import annotations

import asyncio
import itertools
import selectors
import socket
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.bench import proc
from tests.fixtures import models
from tests.fixtures.bad_clients import BadClients, Victim, bad_clients, silences
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive, send

WIDTH = 64
RATE = 100.0
# What glibc and gRPC keep of what they once had; a leak of even one request each would be far more.
KEPT_BYTES = 48 * 2**20
# Blocks are given back at once, the segments that they are part of stay or go later.
KEPT_ARENA_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Used:
    """What front ends and workers use while nobody wants anything of them."""

    sockets: Mapping[int, int]
    resident_bytes: int
    arena_bytes: float

    @classmethod
    def of(cls, daemon: Daemon) -> Used:
        # Not the supervisor, whose descriptors the questions of this test are among.
        pids = daemon.children()
        return cls(
            {pid: sockets(pid) for pid in pids},
            proc.memory_of(pids).rss_bytes,
            daemon.metric("predictd_arena_bytes"),
        )


def sockets(pid: int) -> int:
    """Pipes and files do not come with clients, and memory, which is kept for a while, is looked at by its size."""
    number = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            number += str(path.readlink()).startswith("socket:")
    return number


@dataclass(slots=True)
class Latencies:
    """Of good clients, with bad ones around and without."""

    calm_seconds: list[float] = field(default_factory=list)
    bad_seconds: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return p99(self.bad_seconds) / p99(self.calm_seconds)

    def describe(self) -> str:
        return (
            f"p50 {statistics.median(self.calm_seconds) * 1e3:.1f} ms calm, "
            f"{statistics.median(self.bad_seconds) * 1e3:.1f} ms with bad clients; p99 "
            f"{p99(self.calm_seconds) * 1e3:.1f} ms and {p99(self.bad_seconds) * 1e3:.1f} ms: {self.ratio:.2f} times"
        )


def p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def jobs_for(folder: Path) -> list[Job]:
    direct = Direct(models.mlp(folder / "target.onnx", width=WIDTH))
    return dense_jobs("target", direct, np.random.default_rng(3), 100, WIDTH, (1, 2, 4))


def idle(daemon: Daemon) -> bool:
    return daemon.metric("predictd_in_flight") == daemon.metric("predictd_queue_depth") == 0


def back_to(daemon: Daemon, before: Used) -> bool:
    return idle(daemon) and {pid: sockets(pid) for pid in before.sockets} == before.sockets


async def ask(connections: Connections, jobs: Iterable[Job], seconds: float) -> list[float]:
    """Requests at a steady pace, whatever becomes of those before. Returns how long each took."""
    took: list[float] = []
    start = time.monotonic()

    async def one(call: int, job: Job, due: float) -> None:
        await send(connections.calls[call], job.request)
        took.append(time.monotonic() - due)

    async with asyncio.TaskGroup() as group:
        for number, job in enumerate(jobs):
            due = start + number / RATE
            if due > start + seconds:
                return took
            await asyncio.sleep(due - time.monotonic())
            group.create_task(one(number % len(connections.calls), job, due))
    raise AssertionError("jobs never end")


async def compare(
    daemon: Daemon, jobs: Sequence[Job], clients: BadClients, *, rounds: int, seconds: float
) -> tuple[Latencies, Used]:
    """Windows with and without bad clients by turns, so that whatever else slows the machine slows both."""
    found = Latencies()
    endless = itertools.cycle(jobs)
    async with Connections(daemon.grpc) as connections:
        warm = Load()
        await drive(connections, [*jobs, *jobs, *jobs], load=warm, callers=16)
        warm.assert_all_right()
        before = Used.of(daemon)
        for _ in range(rounds):
            found.calm_seconds += await ask(connections, endless, seconds)
            await asyncio.to_thread(clients.start)
            found.bad_seconds += await ask(connections, endless, seconds)
            await asyncio.to_thread(clients.stop)
            await eventually(partial(back_to, daemon, before), "rid of the bad clients")
        return found, before


def suffer(folder: Path, *, rounds: int, seconds: float) -> Latencies:
    jobs = jobs_for(folder)
    request = folder / "request.bin"
    request.write_bytes(jobs[0].request)
    with (
        running(folder / "target.onnx", "--frontends", "1", folder=folder / "run") as daemon,
        bad_clients(daemon.grpc, request) as clients,
    ):
        found, before = asyncio.run(compare(daemon, jobs, clients, rounds=rounds, seconds=seconds))
        daemon.wait_until(lambda: idle(daemon), 60, "idle")
        after = Used.of(daemon)
        assert after.resident_bytes < before.resident_bytes + KEPT_BYTES
        assert after.arena_bytes <= before.arena_bytes + KEPT_ARENA_BYTES
        daemon.wait_until(
            lambda: daemon.metric("predictd_accepted_total") == daemon.metric("predictd_requests_total") > 0,
            60,
            "done with all that it accepted",
        )
        assert "Traceback" not in daemon.output()
    print(f"{rounds} rounds of {seconds} s: {found.describe()}")
    return found


@pytest.mark.timeout(120)
def test_others_hardly_notice_bad_clients(tmp_path: Path) -> None:
    # What is due is twice; a busy machine has its own outliers, of which a short run sees too few to average.
    found = suffer(tmp_path, rounds=2, seconds=1.5)
    assert found.ratio < 5 or p99(found.bad_seconds) < 1


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_others_do_not_notice_bad_clients_for_a_minute(tmp_path: Path) -> None:
    assert suffer(tmp_path, rounds=10, seconds=3).ratio < 2


def closed(connections: Iterable[socket.socket], seconds: float) -> set[socket.socket]:
    """Those that the other side closes within that time, whatever it says before."""
    deadline = time.monotonic() + seconds
    gone: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                one: socket.socket = key.data
                try:
                    data = one.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    selector.unregister(one)
                    gone.add(one)
    return gone


def test_clients_that_fall_silent_are_cut_off_and_all_that_they_had_is_freed(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path)
    patience = ("--handshake-timeout", "1s", "--keepalive-time", "1s", "--keepalive-timeout", "3s")
    with running(tmp_path / "target.onnx", *patience, folder=tmp_path / "run") as daemon:
        load = Load()
        asyncio.run(_ask_all(daemon, jobs, load))
        daemon.wait_until(lambda: idle(daemon), 60, "idle")
        before = Used.of(daemon)
        victim = Victim(daemon.grpc, jobs[0].request)
        silent = {name: victim.open(data) for name, data in silences(victim).items()}
        try:
            gone = closed(silent.values(), 60)
            assert [name for name, connection in silent.items() if connection not in gone] == []
            daemon.wait_until(lambda: back_to(daemon, before), 60, "back to where it was")
        finally:
            for connection in silent.values():
                connection.close()
        asyncio.run(_ask_all(daemon, jobs, load))
        load.assert_all_right()


async def _ask_all(daemon: Daemon, jobs: Sequence[Job], load: Load) -> None:
    async with Connections(daemon.grpc) as connections:
        await drive(connections, jobs, load=load, callers=8)
