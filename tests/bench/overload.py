"""A model that computes, offered twice and ten times what it can do, with deadlines: how much of it is done in time.

Requests come one by one, whatever became of those before (Poisson arrivals), and each client gives up at its deadline.
The generator shares the CPUs with the daemon, and at ten times the capacity it moves some hundred megabytes a second:
what it uses the daemon has not.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.bench import proc, subject
from tests.bench.daemon import Daemon
from tests.bench.load import LoadError
from tests.bench.metrics import Counters, scrape
from tests.bench.payload import predict_payload
from tests.bench.table import Ratio, Report, Spread, Table
from tests.fixtures.open_loop import Offered, Raw, capacity, connect, offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.settings import Settings

_DEADLINE_SECONDS = 0.25
_AIMS = {2: 0.85, 10: 0.7}
_CALLERS = 16
_REQUESTS = 4
_MIB = 2**20


class _Overload(NamedTuple):
    factor: int
    offered: Offered
    before_bytes: int
    after_bytes: int
    soon_seconds: float
    counted: Counters


def run(settings: Settings) -> Report:
    """Measure the capacity with callers who wait for their answers, then offer more."""
    model = subject.resnet50(settings.folder)
    bodies = predict_payload(model, _REQUESTS).bodies
    arguments = (*settings.daemon_arguments, "--max-batch-size", "8")
    with Daemon(model.path, settings.folder, arguments) as daemon:
        most, usual_seconds, found = asyncio.run(_measure(daemon, bodies, settings.profile.heavy_seconds))
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
                f"{p999:.0f}",
                f"{offered.median_refusal_seconds() * 1e3:.1f}",
                f"{offered.late_seconds * 1e3:.0f}",
                f"{(one.after_bytes - one.before_bytes) / _MIB:+.0f}",
                f"{one.soon_seconds * 1e3:.0f}",
                f"{max(0, one.counted.ran - one.counted.ok)} of {one.counted.ran}",
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
        "",
    )
    report.tables.append(Table(title, head, rows))
    return report


async def _measure(
    daemon: Daemon, bodies: Sequence[bytes], seconds: float
) -> tuple[float, float, list[_Overload]]:
    channels, calls = connect(daemon.target)
    found = []
    usual_seconds = await _alone(calls, bodies)
    most = await capacity(calls, bodies, seconds=seconds, callers=_CALLERS)
    if not most:
        raise LoadError(f"no request was answered within {seconds} s: there is no capacity to measure")
    for factor in _AIMS:
        before, before_bytes = scrape(daemon.http), _resident_bytes(daemon)
        offered = await offer(
            calls,
            bodies,
            rate=factor * most,
            seconds=2.5 * seconds,
            deadlines_seconds=[_DEADLINE_SECONDS],
            seed=factor,
        )
        await asyncio.sleep(1)
        counted = scrape(daemon.http).since(before)
        soon_seconds = await _alone(calls, bodies)
        found.append(_Overload(factor, offered, before_bytes, _resident_bytes(daemon), soon_seconds, counted))
    for channel in channels:
        await channel.close()
    return most, usual_seconds, found


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
