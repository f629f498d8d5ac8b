"""Messages of streams beside calls: the same requests, as many under way, on as many connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.server.bench.messages import Payload
from predictd.server.bench.meter import Times
from predictd.server.bench.processes import Generators
from predictd.server.bench.session import Level, Session, Setup
from tests.bench.machine import limits
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from predictd.server.bench.results import Point
    from tests.bench.settings import Settings
    from tests.bench.tiny import Pair

_AIM = 3.0
_CONNECTIONS = 8
_CALLERS = 128


def run(pair: Pair, settings: Settings) -> Report:
    """Compare them in alternating rounds, on the daemon with the tiny MLP."""
    bodies = pair.payload.bodies
    payload = Payload(bodies, [0] * len(bodies), 1)
    calls: list[Point] = []
    messages: list[Point] = []
    with Generators(1) as generators:
        sessions = [
            Session(_setup(pair, settings, streams=streams), payload, generators, 1, lambda _text: None)
            for streams in (False, True)
        ]
        for _ in range(settings.profile.rounds):
            for session, points in zip(sessions, (calls, messages), strict=True):
                points.append(session.measure(Level(callers=_CALLERS)))
    return _report(calls, messages)


def _setup(pair: Pair, settings: Settings, *, streams: bool) -> Setup:
    profile = settings.profile
    return Setup(
        target=pair.daemon.target,
        api="predictd",
        streams=streams,
        models=("mlp",),
        connections=_CONNECTIONS,
        arrivals="poisson",
        deadline_ns=0,
        http="",
        times=Times(min(0.2, profile.seconds / 5), profile.warmup_seconds, profile.seconds),
    )


def _report(calls: list[Point], messages: list[Point]) -> Report:
    spread = ratio_of_rounds([point.per_second for point in messages], [point.per_second for point in calls])
    rows = [
        (
            name,
            Spread.of([point.per_second for point in points]).text(0),
            Spread.of([point.quantiles["p50"].seconds * 1e3 for point in points]).text(1),
            f"{max(point.client.busiest_cpu for point in points):.0%}",
        )
        for name, points in (("Predict", calls), ("PredictStream", messages))
    ]
    errors = sum(sum(point.errors.values()) + point.unanswered for point in (*calls, *messages))
    return Report(
        ratios=[Ratio("tiny MLP, PredictStream over Predict", spread, _AIM, "above")],
        tables=[
            Table(
                f"Tiny MLP, {_CALLERS} requests under way on {_CONNECTIONS} connections",
                ("", "requests/s", "p50 ms", "CPU of the client"),
                rows,
            )
        ],
        notes=[*limits("Predict", calls), *limits("PredictStream", messages)],
        problems=[f"streams beside calls: {errors} requests failed"] if errors else [],
    )
