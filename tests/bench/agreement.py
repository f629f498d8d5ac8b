"""Does `predictd bench` measure what an independent load generator in C measures?

Both put the same closed loop on the echo server, in turns, so that the server limits and neither of them. Where the
load generator was busy itself it says so, and that stands in the notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.server.bench.messages import Payload
from predictd.server.bench.meter import Times
from predictd.server.bench.processes import Generators
from predictd.server.bench.session import Level, Session, Setup
from tests.bench import h2load
from tests.bench.load import Shape
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from predictd.server.bench.results import Point
    from tests.bench.settings import Settings
    from tests.bench.tiny import Pair

_AIM = 0.1
_SHAPE = Shape(connections=8, in_flight=8)
_PROBE_REQUESTS = 2000
# A median of fewer says little.
_ROUNDS = 5


def run(pair: Pair, settings: Settings) -> Report:
    """Compare them in alternating rounds."""
    if not h2load.installed():
        return Report(notes=["h2load is not installed (Debian: nghttp2-client): nothing to agree with."])
    profile = settings.profile
    setup = Setup(
        target=pair.echo.target,
        api="predictd",
        streams=False,
        models=("echo",),
        connections=_SHAPE.connections,
        arrivals="poisson",
        deadline_ns=0,
        http="",
        times=Times(min(0.2, profile.seconds / 5), profile.warmup_seconds, profile.seconds),
    )
    # h2load sends one body only.
    payload = Payload([pair.echo_payload.bodies[0]], [0], 1)
    points: list[Point] = []
    theirs: list[float] = []

    def other(requests: int) -> float:
        return h2load.requests_per_second(
            pair.echo.target, pair.echo_payload, _SHAPE, requests, settings.folder
        )

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
    reasons = {reason for point in points for reason in point.client.bottleneck}
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
        notes=[
            f"predictd bench: the load generator was the bottleneck: {reason}" for reason in sorted(reasons)
        ],
        problems=[f"predictd bench: {errors} requests failed"] if errors else [],
    )
