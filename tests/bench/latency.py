"""Latency of one caller that sends one request after the other, over the same echo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.load import LoadGenerator, LoadResult, Shape
from tests.bench.machine import caveats
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds
from tests.bench.tiny import Pair, alternate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.settings import Settings

_AIM = 1.5
_SHAPE = Shape(connections=1, in_flight=1)


def run(pair: Pair, settings: Settings) -> Report:
    """Once with each load generator."""
    report = Report()
    rows: list[Sequence[str]] = []
    for kind in settings.generators:
        with LoadGenerator(kind, 1, settings.folder) as generator:
            rounds = alternate(pair, settings, generator, _SHAPE)
        for percent in (50, 99):
            served, echoed = _percentiles(rounds.daemon, percent), _percentiles(rounds.echo, percent)
            name = f"one caller's p{percent} over grpc.aio echo ({kind} client)"
            report.ratios.append(Ratio(name, ratio_of_rounds(served, echoed), _AIM, "below"))
        for name, results in (("predictd", rounds.daemon), ("echo", rounds.echo)):
            spreads = [Spread.of(_percentiles(results, percent)).text(0) for percent in (50, 99)]
            rows.append((f"{name} ({kind})", *spreads))
        report.notes += caveats(f"one caller, {kind} client", [*rounds.daemon, *rounds.echo])
        if lost := rounds.lost():
            report.problems.append(f"one caller, {kind} client: {lost}")
    report.tables.append(Table("Latency of one caller, tiny MLP", ("", "p50 µs", "p99 µs"), rows))
    return report


def _percentiles(results: Sequence[LoadResult], percent: float) -> list[float]:
    return [result.percentile_us(percent) for result in results]
