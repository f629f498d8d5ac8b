"""The tail of the latencies at half of what a daemon can do, for a model whose run takes about 5 ms.

Requests come at a constant rate, which shows the tail that the daemon makes, and at random, which adds what any queue
makes: a single server whose runs all take as long, and that does nothing else, has a p99.9 of 6.3 times its p50 then.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from predictd.server.bench.messages import Payload
from predictd.server.bench.meter import Times
from predictd.server.bench.processes import Generators
from predictd.server.bench.session import Level, Session, Setup
from tests.bench.daemon import Daemon
from tests.bench.payload import learn_answer, predict_payload
from tests.bench.subject import Subject
from tests.bench.table import Ratio, Report, Spread, Table
from tests.fixtures import transformer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from predictd.server.bench.results import Point
    from tests.bench.settings import Settings

_AIM = 4.0
_TOKENS = 48
_REQUESTS = 16
_CONNECTIONS = 4
_CALLERS = 16
# One answer in a thousand is to be beyond the percentile, and a few of these make one that says something.
_LONGER = 5
_ARRIVALS = ("constant", "poisson")
_QUANTILES = ("p50", "p99", "p99.9")


def run(settings: Settings) -> Report:
    """Saturate the daemon to learn what it can do, then offer half of that at random times."""
    model = _encoder(settings.folder)
    expected = predict_payload(model, _REQUESTS)
    seconds = settings.profile.seconds
    with (
        Daemon(model.path, settings.folder, settings.daemon_arguments) as daemon,
        Generators(1) as generators,
    ):
        learn_answer(daemon.target, expected)
        payload = Payload(expected.bodies, [0] * len(expected.bodies), 1)

        def measure(level: Level, seconds: float, arrivals: str = "poisson") -> Point:
            setup = Setup(
                target=daemon.target,
                api="predictd",
                streams=False,
                models=(model.name,),
                connections=_CONNECTIONS,
                arrivals=arrivals,
                deadline_ns=0,
                http="",
                times=Times(min(0.2, seconds / 5), settings.profile.warmup_seconds, seconds),
            )
            return Session(setup, payload, generators, 1, lambda _text: None).measure(level)

        most = measure(Level(callers=_CALLERS), seconds)
        level = Level(rate=most.per_second / 2)
        halves = {arrivals: measure(level, seconds * _LONGER, arrivals) for arrivals in _ARRIVALS}
    return _report(most, halves)


def _encoder(folder: Path) -> Subject:
    size = dataclasses.replace(transformer.MINILM, sequence=_TOKENS)
    path = transformer.encoder(folder / "encoder.onnx", size)
    return Subject("encoder", path, lambda seed: transformer.sentence(size, seed))


def _report(most: Point, halves: Mapping[str, Point]) -> Report:
    report = Report()
    rows = []
    for name, point in (
        (f"{_CALLERS} callers", most),
        *((f"half, {name}", half) for name, half in halves.items()),
    ):
        found = [point.quantiles.get(quantile) for quantile in _QUANTILES]
        times = [f"{each.seconds * 1e3:.1f}" if each else "" for each in found]
        rows.append((name, f"{point.per_second:,.0f}", *times))
        if errors := sum(point.errors.values()) + point.unanswered:
            report.problems.append(f"the tail, {name}: {errors} requests failed")
    header = ("", "sentences/s", *(f"{quantile} ms" for quantile in _QUANTILES))
    report.tables.append(Table(f"MiniLM-sized transformer, {_TOKENS} tokens", header, rows))
    for name, half in halves.items():
        if (last := half.quantiles.get("p99.9")) is None:
            report.notes.append(f"the tail, {name} arrivals: too few answers for p99.9")
            continue
        ratio = Spread.of([last.seconds / half.quantiles["p50"].seconds])
        title = f"p99.9 over p50 at half of the capacity, run of about 5 ms, {name} arrivals"
        report.ratios.append(Ratio(title, ratio, _AIM, "below"))
    return report
