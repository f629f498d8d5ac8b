"""Measures loads, one after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from predictd.server.bench import batches
from predictd.server.bench.access import PLAIN, Access
from predictd.server.bench.messages import Drive, Interval, Payload
from predictd.server.bench.meter import Meter, Times
from predictd.server.bench.processes import Generators
from predictd.server.bench.results import Point, SloResult, load_text
from predictd.server.bench.schedule import shared
from predictd.server.bench.slo import Slo, SloSearch
from predictd.server.measure.engine_process import MeasureError

# Processes get their commands meanwhile.
_DISPATCH_SECONDS = 0.05
_IN_FLIGHT_MAX = 16384
_SILENT_SECONDS = 30.0
# In a measurement of a search.
_LEAST_REQUESTS = 10

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Level:
    """A load: so many callers in a closed loop, or so many requests a second in an open one."""

    callers: int = 0
    rate: float = 0.0

    @property
    def label(self) -> str:
        """In words."""
        return load_text(self.callers, self.rate)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all loads have in common.

    Attributes:
        target: Where the server listens.
        api: One of `dialects.APIS`.
        streams: Send over streams.
        models: Names, for the report.
        connections: Of all processes together.
        arrivals: One of `schedule.ARRIVALS`.
        deadline_ns: Of each request; 0 for none.
        http: Where the daemon's metrics are; empty not to read them.
        times: How long each load is measured.
        access: How the server is reached.
    """

    target: str
    api: str
    streams: bool
    models: tuple[str, ...]
    connections: int
    arrivals: str
    deadline_ns: int
    http: str
    times: Times
    access: Access = PLAIN


class Session:
    """Processes that put load on a server.

    Args:
        setup: What all loads have in common.
        payload: The requests.
        generators: The processes.
        processes: How many these are.
        show: Told of what is going on.
    """

    def __init__(
        self, setup: Setup, payload: Payload, generators: Generators, processes: int, show: Show
    ) -> None:
        self._setup = setup
        self._payload = payload
        self._generators = generators
        self._processes = processes
        self._show = show

    def measure(self, level: Level) -> Point:
        """Put one load on the server. Raises MeasureError if the server is gone, or there is no answer at all."""
        point = self._measure(level)
        if not point.answers:
            told = "; ".join(f"{count} times {reason}" for reason, count in point.errors.items())
            raise MeasureError(
                f"{level.label}: no answer from {self._setup.target} ({told or 'nothing came'})"
            )
        return point

    def _measure(self, level: Level) -> Point:
        setup = self._setup
        used = min(self._processes, setup.connections, level.callers or self._processes)
        meter = Meter(used, self._payload.model_count, setup.times)

        def enough(part: Interval) -> bool:
            over = meter.add(part)
            self._show(f"{level.label}: {meter.progress()}")
            return over

        before = batches.scrape(setup.http, setup.access) if setup.http else None
        with tempfile.TemporaryDirectory(prefix="predictd-bench-") as folder:
            file = Path(folder, "payload")
            file.write_bytes(msgspec.msgpack.encode(self._payload))
            commands = self._commands(level, used, str(file))
            unanswered = self._generators.drive(
                commands, enough, _SILENT_SECONDS + setup.times.interval_seconds
            )
        if meter.failure:
            raise MeasureError(meter.failure)
        batched = (
            batches.between(before, batches.scrape(setup.http, setup.access)) if before is not None else None
        )
        return meter.point(
            callers=level.callers,
            rate=level.rate,
            names=setup.models,
            unanswered=sum(each.unanswered for each in unanswered),
            batches=batched,
        )

    def _commands(self, level: Level, used: int, payload: str) -> list[Drive]:
        setup = self._setup
        connections = min(setup.connections, level.callers or setup.connections)
        begin_ns = time.monotonic_ns() + int(_DISPATCH_SECONDS * 1e9)
        return [
            Drive(
                target=setup.target,
                api=setup.api,
                streams=setup.streams,
                payload=payload,
                connections=links,
                callers=callers,
                rate=level.rate,
                arrivals=setup.arrivals,
                part=part,
                parts=used,
                in_flight_max=_IN_FLIGHT_MAX // used,
                timeout=timeout(setup.deadline_ns),
                begin_ns=begin_ns,
                interval_ns=round(setup.times.interval_seconds * 1e9),
                access=setup.access,
            )
            for part, (links, callers) in enumerate(
                zip(shared(connections, used), shared(level.callers, used), strict=True)
            )
        ]

    def search(self, slo: Slo, start: float | None) -> tuple[list[Point], SloResult]:
        """Find the highest rate that keeps a limit.

        Args:
            slo: The limit.
            start: First rate; None to begin with what a single caller gets.
        """
        points: list[Point] = []
        first = self.measure(Level(callers=1)).per_second if start is None else start
        search = SloSearch(first, _LEAST_REQUESTS / self._setup.times.seconds)
        while (rate := search.next_rate()) is not None:
            point = self._measure(Level(rate=rate))
            search.tried(kept=slo.kept(point))
            points.append(point)
        points.sort(key=lambda point: point.rate)
        return points, SloResult(slo.quantile, slo.limit_seconds, search.good, search.bad)


def timeout(nanoseconds: int) -> str:
    """A deadline as gRPC writes it, at most eight digits; empty for none."""
    if not nanoseconds:
        return ""
    for unit, unit_ns in (("n", 1), ("u", 10**3), ("m", 10**6)):
        if -(-nanoseconds // unit_ns) < 10**8:
            return f"{-(-nanoseconds // unit_ns)}{unit}"
    return f"{min(-(-nanoseconds // 10**9), 10**8 - 1)}S"
