"""More than can be done is asked for: what can be done is done, in time, and the rest is told so at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from predictd.client.messages import Request, build
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.open_loop import Offered, capacity, connect, offer
from tests.fixtures.processes import custom

SLOW = "tests.fixtures.slow_engine:load"
RUN_SECONDS = 0.01
DEADLINE_SECONDS = 0.25
REQUESTS = [
    build(Request(model="slow", inputs={"x": np.full((1, 1), at, np.float32)})).SerializeToString()
    for at in range(16)
]


@dataclass(frozen=True, slots=True)
class Found:
    """Goodput at twice and at ten times the capacity, and how long a lone request took before and after."""

    capacity: float
    twice: Offered
    tenfold: Offered
    before_seconds: float
    after_seconds: float


async def overload(daemon: Daemon) -> Found:
    channels, calls = connect(daemon.grpc)

    async def lone() -> float:
        took = []
        for _ in range(5):
            start = time.monotonic()
            await calls[0](REQUESTS[0], timeout=60)
            took.append(time.monotonic() - start)
        return min(took)

    before = await lone()
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
    after = await lone()
    for channel in channels:
        await channel.close()
    return Found(most, twice, tenfold, before, after)


def test_at_ten_times_its_capacity_a_daemon_does_what_it_can(tmp_path: Path) -> None:
    model = custom(tmp_path, "slow", SLOW, run_seconds=RUN_SECONDS)
    with running(model, "--frontends", "1", "--instances", "1", folder=tmp_path / "run") as daemon:
        found = asyncio.run(overload(daemon))
        for offered in (found.twice, found.tenfold):
            print(
                f"{offered.goodput / found.capacity:.2f} of {found.capacity:.0f}/s; {dict(offered.codes)}; ",
                end="",
            )
            print(
                f"refused in {offered.median_refusal_seconds() * 1e3:.1f} ms; late {offered.late_seconds:.3f} s"
            )
            assert set(offered.codes) <= {
                grpc.StatusCode.OK,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            }
            assert offered.refused_seconds, "nobody was told at once"
            assert offered.median_refusal_seconds() < DEADLINE_SECONDS / 2
        assert found.twice.goodput > 0.7 * found.capacity
        assert found.tenfold.goodput > 0.5 * found.capacity
        assert found.after_seconds < found.before_seconds + DEADLINE_SECONDS
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 30, "idle")
        good = daemon.metric("predictd_requests_total", status="OK")
        ran = daemon.metric("predictd_run_requests_total")
        print(f"{ran - good:.0f} of {ran:.0f} requests ran in vain")
        assert ran - good <= 0.2 * ran
        assert daemon.metric("predictd_shed_total", reason="expected_wait") > 0
        assert daemon.metric("predictd_accepted_total") == daemon.metric("predictd_requests_total")
        assert daemon.metric("predictd_expected_run_seconds") > 0


def test_a_deadline_of_the_servers_own_and_a_limit_for_each_client(tmp_path: Path) -> None:
    model = custom(tmp_path, "slow", SLOW, run_seconds=0.5)
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
        assert daemon.metric("predictd_shed_total", reason="client_limit") == 2
