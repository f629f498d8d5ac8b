"""Does `predictd bench` measure what an independent load generator in C measures?

Both put the same closed loop on the echo server, in turns. The server has a CPU for itself, so that it limits and
neither of them: with two, its threads took 87 or 128 µs of CPU a request, depending on which of them the scheduler put
beside the client. Where the load generator was busy itself it says so, and that stands in the notes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from predictd.server.bench import messages
from predictd.server.bench.meter import Times
from predictd.server.bench.processes import Generators
from predictd.server.bench.session import Level, Session, Setup
from tests.bench import h2load
from tests.bench.echo_server import EchoServer
from tests.bench.load import Shape
from tests.bench.machine import limits
from tests.bench.payload import Payload
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from predictd.server.bench.results import Point
    from tests.bench.settings import Settings

_AIM = 0.1
# As long as a request to the tiny MLP.
_BODY = bytes(300)
_SHAPE = Shape(connections=8, in_flight=8)
_PROBE_REQUESTS = 2000
# A median of fewer says little.
_ROUNDS = 5


def run(settings: Settings) -> Report:
    """Compare them in alternating rounds."""
    if not h2load.installed():
        return Report(notes=["h2load is not installed (Debian: nghttp2-client): nothing to agree with."])
    first, *others = sorted(os.sched_getaffinity(0))
    with _on([first]):
        echo = EchoServer(1, len(_BODY))
    with echo, _on(others or [first]):
        return _compare(echo.target, settings)


@contextmanager
def _on(cpus: Iterable[int]) -> Iterator[None]:
    """Keep to these CPUs, as do processes that are started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _compare(target: str, settings: Settings) -> Report:
    profile = settings.profile
    setup = Setup(
        target=target,
        api="predictd",
        streams=False,
        models=("echo",),
        connections=_SHAPE.connections,
        arrivals="poisson",
        deadline_ns=0,
        http="",
        times=Times(min(0.2, profile.seconds / 5), profile.warmup_seconds, profile.seconds),
    )
    payload = messages.Payload([_BODY], [0], 1)
    body = Payload([_BODY], [], [], [], [])
    points: list[Point] = []
    theirs: list[float] = []

    def other(requests: int) -> float:
        return h2load.requests_per_second(target, body, _SHAPE, requests, settings.folder)

    with Generators(1) as generators:
        session = Session(setup, payload, generators, 1, lambda _text: None)
        for _ in range(max(_ROUNDS, profile.rounds)):
            points.append(session.measure(Level(callers=_SHAPE.callers)))
            theirs.append(other(max(_PROBE_REQUESTS, int(other(_PROBE_REQUESTS) * profile.seconds))))
    return _report([point.per_second for point in points], theirs, points)


def _report(ours: list[float], theirs: list[float], points: list[Point]) -> Report:
    spread = ratio_of_rounds(ours, theirs)
    name = "predictd bench requests/s over h2load, closed loop on echo"
    busiest = f"{max(point.client.busiest_cpu for point in points):.0%}"
    rows = [
        ("predictd bench", Spread.of(ours).text(0), busiest),
        ("h2load", Spread.of(theirs).text(0), ""),
    ]
    errors = sum(sum(point.errors.values()) + point.unanswered for point in points)
    return Report(
        ratios=[
            Ratio(name, spread, 1.0, None),
            Ratio(
                "the same, distance of the median from 1",
                Spread.of([abs(spread.median - 1)]),
                _AIM,
                "below",
            ),
        ],
        tables=[Table("Load generators", ("", "requests/s", "CPU of the busiest process"), rows)],
        notes=limits("agreement", points),
        problems=[f"predictd bench: {errors} requests failed"] if errors else [],
    )
