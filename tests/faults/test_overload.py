"""More than can be done is asked for: what can be done is done, in time, and the rest is told so at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from predictd.client.messages import Request, build
from tests.bench import proc
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually
from tests.fixtures.open_loop import Offered, Raw, capacity, connect, offer
from tests.fixtures.processes import custom

SLOW = "tests.fixtures.slow_engine:load"
RUN_SECONDS = 0.02
DEADLINE_SECONDS = 0.25
# As large as an image: what is refused must cost little, whatever it carries.
WIDTH = 3 * 224 * 224
REQUESTS = [
    build(Request(model="slow", inputs={"x": np.full((1, WIDTH), at, np.float32)})).SerializeToString()
    for at in range(4)
]
# More callers than can be answered within that time.
CALLERS = 64
HURRY_SECONDS = 0.9
# Larger than the daemon takes, so that gRPC itself says so of one that is received.
MAX_MESSAGE = "1MiB"
OVERSIZED = bytes(2 * 2**20)
METHODS = (
    "/predictd.v1.PredictionService/Predict",
    "/inference.GRPCInferenceService/ModelInfer",
    "/tensorflow.serving.PredictionService/Predict",
)
MEMORY_BYTES = 128 * 2**20
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """Goodput at twice and at ten times the capacity, and how long a lone request took before and after.

    Attributes:
        unread: What each API says of requests that are refused before they are received.
        grown_bytes: Resident memory of the daemon afterwards, beyond that before.
        in_vain: Which share of the requests that ran nobody waited for any more.
    """

    capacity: float
    twice: Offered
    tenfold: Offered
    before_seconds: float
    after_seconds: float
    unread: dict[str, set[str]]
    grown_bytes: int
    in_vain: float

    @property
    def held_up(self) -> str:
        """What was worse than it should be, and is so on a machine that has something else to do meanwhile."""
        worse = {
            "goodput at twice": self.twice.goodput <= 0.7 * self.capacity,
            "goodput at ten times": self.tenfold.goodput <= 0.5 * self.capacity,
            "a lone request afterwards": self.after_seconds >= self.before_seconds + DEADLINE_SECONDS,
            "how soon others were refused": max(
                offered.median_refusal_seconds() for offered in (self.twice, self.tenfold)
            )
            >= DEADLINE_SECONDS / 2,
            "runs in vain": self.in_vain > 0.2,
        }
        return ", ".join(what for what, is_worse in worse.items() if is_worse)


def resident_bytes(daemon: Daemon) -> int:
    return proc.memory_of([daemon.process.pid, *proc.descendants(daemon.process.pid)]).pss_bytes


async def refused_unread(channel: grpc.aio.Channel, calls: Sequence[Raw]) -> dict[str, set[str]]:
    """Ask for too much while more wait than can be answered in time."""
    busy = [asyncio.create_task(keep_asking(calls[at % len(calls)])) for at in range(CALLERS)]
    said: dict[str, set[str]] = {method: set() for method in METHODS}
    try:
        await until_refused(calls[0])
        for method in METHODS:
            call: Raw = channel.unary_unary(method)
            # One of many is received all the same, to see what it is.
            for _ in range(2):
                try:
                    await call(OVERSIZED, timeout=HURRY_SECONDS)
                except grpc.aio.AioRpcError as error:
                    said[method].add(error.details() or "")
    finally:
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    return said


async def keep_asking(call: Raw) -> None:
    while True:
        await call(REQUESTS[0], timeout=60)


async def until_refused(call: Raw) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await call(REQUESTS[0], timeout=HURRY_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return


async def overload(daemon: Daemon) -> Found:
    channels, calls = connect(daemon.grpc)

    async def lone() -> float:
        took = []
        for _ in range(5):
            start = time.monotonic()
            await calls[0](REQUESTS[0], timeout=60)
            took.append(time.monotonic() - start)
        return min(took)

    before, before_bytes = await lone(), resident_bytes(daemon)
    ran, good = ran_and_good(daemon)
    most = await capacity(calls, REQUESTS, seconds=2, callers=16)
    twice, tenfold = [
        await offer(
            calls,
            REQUESTS,
            rate=factor * most,
            seconds=3,
            deadlines_seconds=[DEADLINE_SECONDS, DEADLINE_SECONDS, 4 * DEADLINE_SECONDS],
            seed=factor,
        )
        for factor in (2, 10)
    ]
    await asyncio.sleep(1)
    after, after_bytes = await lone(), resident_bytes(daemon)
    unread = await refused_unread(channels[0], calls)
    for channel in channels:
        await channel.close()
    await eventually(lambda: daemon.metric("predictd_in_flight") == 0, "idle")
    ran_since, good_since = (now - then for now, then in zip(ran_and_good(daemon), (ran, good), strict=True))
    in_vain = (ran_since - good_since) / ran_since
    return Found(most, twice, tenfold, before, after, unread, after_bytes - before_bytes, in_vain)


def ran_and_good(daemon: Daemon) -> tuple[float, float]:
    """How many requests ran, and how many were answered."""
    return daemon.metric("predictd_run_requests_total"), daemon.metric("predictd_requests_total", status="OK")


def show_and_check(found: Found) -> None:
    """What must be whatever else the machine does."""
    for offered in (found.twice, found.tenfold):
        print(
            f"{offered.goodput / found.capacity:.2f} of {found.capacity:.0f}/s; {dict(offered.codes)}; ",
            end="",
        )
        assert set(offered.codes) <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }
        assert offered.refused_seconds, "nobody was told at once"
        print(
            f"refused in {offered.median_refusal_seconds() * 1e3:.1f} ms; late {offered.late_seconds:.3f} s"
        )
    print(f"memory {found.grown_bytes / 2**20:+.0f} MiB; {found.in_vain:.1%} of the runs in vain")
    assert found.grown_bytes < MEMORY_BYTES
    for method, said in found.unread.items():
        assert any("is expected in" in details for details in said), (method, said)


def test_at_ten_times_its_capacity_a_daemon_does_what_it_can(tmp_path: Path) -> None:
    model = custom(tmp_path, "slow", SLOW, run_seconds=RUN_SECONDS, width=WIDTH)
    arguments = ("--frontends", "1", "--instances", "1", "--max-message-size", MAX_MESSAGE)
    with running(model, *arguments, folder=tmp_path / "run") as daemon:
        held_up: list[str] = []
        while not held_up or held_up[-1]:
            assert len(held_up) < ATTEMPTS, held_up
            found = asyncio.run(overload(daemon))
            show_and_check(found)
            held_up.append(found.held_up)
        assert daemon.metric("predictd_shed_total", reason="expected_wait") > 0
        daemon.wait_until(
            lambda: daemon.metric("predictd_accepted_total") == daemon.metric("predictd_requests_total") > 0,
            30,
            "done with all that it accepted",
        )
        assert daemon.metric("predictd_expected_run_seconds") > 0


def test_a_deadline_of_the_servers_own_and_a_limit_for_each_client(tmp_path: Path) -> None:
    model = custom(tmp_path, "slow", SLOW, run_seconds=0.5, width=WIDTH)
    arguments = ("--default-deadline", "100ms", "--max-concurrent-per-client", "2", "--frontends", "1")

    async def ask() -> list[grpc.StatusCode]:
        channels, calls = connect(daemon.grpc)

        async def one(call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> grpc.aio.AioRpcError:
            try:
                await call(REQUESTS[0])
            except grpc.aio.AioRpcError as error:
                return error
            raise AssertionError("answered")

        errors = await asyncio.gather(*map(one, calls))
        for channel in channels:
            await channel.close()
        for error in errors:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                assert "max_concurrent_per_client" in str(error.details())
                assert "grpc-status-details-bin" in {key for key, _ in error.trailing_metadata()}
            else:
                assert "100ms" in str(error.details())
        return [error.code() for error in errors]

    with running(model, *arguments, folder=tmp_path / "run") as daemon:
        codes = asyncio.run(ask())
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 2
        assert codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) == 2
        daemon.wait_metric("predictd_shed_total", 2, reason="client_limit")
