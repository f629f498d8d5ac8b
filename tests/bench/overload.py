"""A model that computes, offered twice and ten times what it can do, with deadlines: how much of it is done in time.

Requests come one by one, whatever became of those before (Poisson arrivals), and each client gives up at its deadline.
The generator shares the CPUs with the daemon: what it uses the daemon has not, so the CPU time of both stands beside
the result. An echo server beside the daemon is asked 50 times a second meanwhile: what it needs at worst is the
machine's.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import grpc.aio
import numpy as np

from tests.bench import proc, subject
from tests.bench.daemon import Daemon
from tests.bench.echo_server import EchoServer
from tests.bench.load import LoadError
from tests.bench.metrics import Counters, scrape
from tests.bench.payload import METHOD, predict_payload
from tests.bench.table import Ratio, Report, Spread, Table
from tests.fixtures.open_loop import Offered, Raw, capacity, connect, offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tests.bench.settings import Settings

_DEADLINE_SECONDS = 0.25
_AIMS = {2: 0.85, 10: 0.7}
_CALLERS = 16
_REQUESTS = 4
_MIB = 2**20
_SLACK_SECONDS = 0.02
_ECHO_BYTES = 4000
_ECHO = bytes(_ECHO_BYTES)
_ECHO_EVERY_SECONDS = 0.02
_GENERATOR = "generator"
_ROLES = ("workers", "front ends", _GENERATOR)


class _Overload(NamedTuple):
    factor: int
    offered: Offered
    before_bytes: int
    after_bytes: int
    soon_seconds: float
    counted: Counters
    cpu_seconds: Mapping[str, float]
    echoed_seconds: Sequence[float]

    def share(self, role: str) -> str:
        """CPUs that a role kept busy."""
        return f"{self.cpu_seconds[role] / self.offered.seconds:.2f}"

    def within_seconds(self) -> float:
        """Within which all but one of a thousand answers shall be there."""
        return _DEADLINE_SECONDS + max(_SLACK_SECONDS, float(np.percentile(self.echoed_seconds, 99.9)))


def run(settings: Settings) -> Report:
    """Measure the capacity with callers who wait for their answers, then offer more."""
    model = subject.resnet50(settings.folder)
    bodies = predict_payload(model, _REQUESTS).bodies
    arguments = (*settings.daemon_arguments, "--max-batch-size", "8")
    with Daemon(model.path, settings.folder, arguments) as daemon, EchoServer(1, _ECHO_BYTES) as echo:
        most, usual_seconds, found = asyncio.run(
            _measure(daemon, echo, bodies, settings.profile.heavy_seconds)
        )
    report = Report()
    rows: list[Sequence[str]] = []
    for one in found:
        offered = one.offered
        ratio = offered.goodput / most
        report.ratios.append(
            Ratio(
                f"answers in time at {one.factor} times the capacity, over the capacity",
                Spread.of([ratio]),
                _AIMS[one.factor],
                "above",
            )
        )
        p999 = np.percentile(offered.answered_seconds, 99.9) * 1e3 if offered.answered_seconds else 0.0
        codes = ", ".join(f"{code.name} {count}" for code, count in offered.codes.most_common())
        rows.append(
            (
                f"{one.factor} times",
                f"{offered.goodput:.1f}",
                f"{p999:.0f} ≤ {one.within_seconds() * 1e3:.0f}",
                f"{offered.median_refusal_seconds() * 1e3:.1f}",
                f"{offered.late_seconds * 1e3:.0f}",
                f"{(one.after_bytes - one.before_bytes) / _MIB:+.0f}",
                f"{one.soon_seconds * 1e3:.0f}",
                f"{max(0, one.counted.ran - one.counted.ok)} of {one.counted.ran}",
                *map(one.share, _ROLES),
                codes,
            )
        )
    title = (
        f"Overload, {_DEADLINE_SECONDS * 1e3:.0f} ms deadlines: {model.name}, capacity {most:.1f}/s, "
        f"one alone takes {usual_seconds * 1e3:.0f} ms"
    )
    head = (
        "offered",
        "in time/s",
        "p99.9 ms",
        "refused in ms",
        "generator late ms",
        "memory MiB",
        "one alone 1 s after, ms",
        "run in vain",
        *(f"CPUs {role}" for role in _ROLES),
        "",
    )
    report.tables.append(Table(title, head, rows))
    return report


async def _measure(
    daemon: Daemon, echo: EchoServer, bodies: Sequence[bytes], seconds: float
) -> tuple[float, float, list[_Overload]]:
    channels, calls = connect(daemon.target)
    found = []
    usual_seconds = await _alone(calls, bodies)
    most = await capacity(calls, bodies, seconds=seconds, callers=_CALLERS)
    if not most:
        raise LoadError(f"no request was answered within {seconds} s: there is no capacity to measure")
    for factor in _AIMS:
        before, before_bytes = scrape(daemon.http), _resident_bytes(daemon)
        roles = daemon.roles() | {_GENERATOR: [os.getpid()]}
        before_cpu = proc.cpu_by_role(roles)
        async with _echoing(echo) as echoed_seconds:
            offered = await offer(
                calls,
                bodies,
                rate=factor * most,
                seconds=2.5 * seconds,
                deadlines_seconds=[_DEADLINE_SECONDS],
                seed=factor,
            )
        used = {role: after - before_cpu[role] for role, after in proc.cpu_by_role(roles).items()}
        await asyncio.sleep(1)
        counted = scrape(daemon.http).since(before)
        soon_seconds = await _alone(calls, bodies)
        after_bytes = _resident_bytes(daemon)
        found.append(
            _Overload(factor, offered, before_bytes, after_bytes, soon_seconds, counted, used, echoed_seconds)
        )
    for channel in channels:
        await channel.close()
    return most, usual_seconds, found


@asynccontextmanager
async def _echoing(echo: EchoServer) -> AsyncIterator[list[float]]:
    """Ask an echo server all the while; gives what each answer took."""
    took: list[float] = []

    async def ask() -> None:
        while True:
            start = time.monotonic()
            await call(_ECHO, timeout=60)
            took.append(time.monotonic() - start)
            await asyncio.sleep(_ECHO_EVERY_SECONDS)

    async with grpc.aio.insecure_channel(echo.target) as channel:
        call: Raw = channel.unary_unary(METHOD)
        await call(_ECHO, timeout=60)
        asking = asyncio.create_task(ask())
        try:
            yield took
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _alone(calls: Sequence[Raw], bodies: Sequence[bytes]) -> float:
    """The median of five requests, one after the other."""
    took = []
    for _ in range(5):
        start = time.monotonic()
        await calls[0](bodies[0], timeout=60)
        took.append(time.monotonic() - start)
    return float(np.median(took))


def _resident_bytes(daemon: Daemon) -> int:
    return proc.memory_of(pid for role in daemon.roles().values() for pid in role).pss_bytes
