"""Served throughput of a ResNet-50-sized model over a bare `session.run` loop with all CPUs at hand."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.bare import BareLoop, BareResult
from tests.bench.daemon import Daemon
from tests.bench.load import LoadGenerator, LoadResult, Shape
from tests.bench.machine import caveats, disturbance
from tests.bench.metrics import Counters, scrape, settled
from tests.bench.payload import learn_answer, predict_payload
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds
from tests.fixtures.models import resnet50

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.settings import Settings

_AIM = 0.95
# Inputs are 600 KB: too large for the wire client, and at some dozens a second grpc.aio costs little.
_GENERATOR = "aio"
_SHAPE = Shape(connections=4, in_flight=4, verify_every=5)
_REQUESTS = 16
_BARE_ROWS = (1, 4, 8)
_ROLES = ("supervisor", "front ends", "workers", "clients")


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was found.

    Attributes:
        tried: Each batch size of the bare loop, measured once, to find the best.
        rows: The best.
        served: One result a round.
        bare: One result a round, with the best batch size.
        counted: What the daemon says of the rounds.
    """

    tried: Mapping[int, BareResult]
    rows: int
    served: Sequence[LoadResult]
    bare: Sequence[BareResult]
    counted: Counters


def run(settings: Settings) -> Report:
    """Compare them in alternating rounds."""
    found = _measure(settings)
    served = [result.smooth_per_second for result in found.served]
    bare = [result.per_second for result in found.bare]
    name = "ResNet-50 images/s served over bare session.run"
    report = Report(
        ratios=[Ratio(name, ratio_of_rounds(served, bare), _AIM, "above")],
        tables=[_rates(found, served, bare), _cpu(found.served)],
        notes=[
            *caveats("ResNet-50 served", found.served),
            *disturbance("ResNet-50 bare", [result.foreign_cpus for result in found.bare]),
        ],
    )
    total = sum(result.total for result in found.served)
    if found.counted.ok != total:
        report.problems.append(
            f"ResNet-50: clients got {total} answers, the daemon counted {found.counted.ok}"
        )
    return report


def _measure(settings: Settings) -> _Measured:
    """Both are loaded all the time, and idle while the other one is measured."""
    model = resnet50(settings.folder / "resnet50.onnx")
    payload = predict_payload("resnet50", model, _REQUESTS)
    profile = settings.profile
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(model, settings.folder, settings.daemon_arguments))
        learn_answer(daemon.target, payload)
        file = payload.save(settings.folder / "resnet50.payload")
        generator = stack.enter_context(LoadGenerator(_GENERATOR, 1, settings.folder))
        bare = stack.enter_context(BareLoop(model))
        tried = {rows: bare.measure(rows, profile.heavy_seconds / 2) for rows in _BARE_ROWS}
        best = max(tried, key=lambda rows: tried[rows].per_second)
        roles = daemon.roles()
        before = scrape(daemon.http)
        rounds = [
            (
                generator.run(
                    daemon.target,
                    file,
                    _SHAPE,
                    profile,
                    roles=lambda: roles,
                    seconds=profile.heavy_seconds,
                ),
                bare.measure(best, profile.heavy_seconds),
            )
            for _ in range(profile.rounds)
        ]
        served, alone = [each for each, _ in rounds], [each for _, each in rounds]
        counted = settled(daemon.http, before.ok + sum(result.total for result in served))
    return _Measured(tried, best, served, alone, counted.since(before))


def _rates(found: _Measured, served: Sequence[float], bare: Sequence[float]) -> Table:
    p50 = statistics.median(result.percentile_us(50) for result in found.served) / 1e3
    rows: list[Sequence[str]] = [
        ("served", Spread.of(served).text(1), f"{p50:.0f}", f"{found.counted.mean_batch:.1f}"),
        (f"bare loop, batch {found.rows}", Spread.of(bare).text(1), "", str(found.rows)),
    ]
    for number, result in found.tried.items():
        rows.append((f"bare loop, batch {number}, tried once", f"{result.per_second:.1f}", "", str(number)))
    title = f"ResNet-50-sized model, {_SHAPE.callers} callers with one image each"
    return Table(title, ("", "images/s", "p50 ms", "mean batch"), rows)


def _cpu(served: Sequence[LoadResult]) -> Table:
    cells = [f"{statistics.median(result.cpu_us(role) for result in served):,.0f}" for role in _ROLES]
    return Table("CPU µs an image, by role (median)", ("", *_ROLES), [("served", *cells)])
