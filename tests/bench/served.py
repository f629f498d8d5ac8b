"""Served throughput of a model that computes over the engine alone, with the threads and batch that suit it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import proc, subject
from tests.bench.daemon import Daemon
from tests.bench.load import LoadGenerator, LoadResult, Shape
from tests.bench.loops import LoopResult, plain
from tests.bench.machine import caveats, disturbance
from tests.bench.metrics import Counters, scrape, settled
from tests.bench.payload import learn_answer, predict_payload
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.settings import Settings
    from tests.bench.subject import Subject

_REQUESTS = 16
_ROLES = ("supervisor", "front ends", "workers", "clients")


@dataclass(frozen=True, slots=True)
class BarePlan:
    """A way to run the engine alone: so many processes with so many threads, and batches of so many rows."""

    processes: int
    threads: int
    rows: int

    @property
    def text(self) -> str:
        return f"{self.processes} process(es) of {self.threads} thread(s), batch {self.rows}"


@dataclass(frozen=True, slots=True)
class Case:
    """A model under a load.

    Attributes:
        name: For the report.
        subject: Makes the model.
        shape: The load: callers with one row each.
        generator: Of the load.
        aim: The least ratio that is promised.
        rows: Batch sizes that the engine alone is tried with.
    """

    name: str
    subject: Callable[[Path], Subject]
    shape: Shape
    generator: str
    aim: float
    rows: tuple[int, ...]

    def plans(self) -> list[BarePlan]:
        """What the engine alone is tried with, in one process."""
        return [BarePlan(1, threads, rows) for rows in self.rows for threads in sorted({1, proc.cpus()})]

    def others(self) -> list[BarePlan]:
        """What several processes would do, to be seen beside: one caller has no use for them."""
        cpus = proc.cpus()
        return [BarePlan(cpus, 1, rows) for rows in self.rows] if self.shape.callers > 1 and cpus > 1 else []


CASES = {
    case.name: case
    for case in (
        Case("resnet", subject.resnet50, Shape(4, 4, verify_every=5), "wire", 0.95, (1, 4, 8)),
        Case("minilm-one", subject.minilm, Shape(1, 1, verify_every=5), "wire", 0.95, (1,)),
        Case("minilm", subject.minilm, Shape(4, 4, verify_every=5), "wire", 0.95, (1, 4, 16)),
    )
}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was found.

    Attributes:
        tried: Each plan of the engine alone, measured once, to find the best.
        best: The best.
        served: One result a round.
        bare: One result a round, with the best plan.
        counted: What the daemon says of the rounds.
    """

    tried: Mapping[BarePlan, LoopResult]
    best: BarePlan
    served: Sequence[LoadResult]
    bare: Sequence[LoopResult]
    counted: Counters


def run(case: Case, settings: Settings) -> Report:
    """Compare them in alternating rounds."""
    found = _measure(case, settings)
    served = [result.smooth_per_second for result in found.served]
    bare = [result.per_second for result in found.bare]
    report = Report(
        ratios=[
            Ratio(
                f"{case.name} rows/s served over bare engine",
                ratio_of_rounds(served, bare),
                case.aim,
                "above",
            )
        ],
        tables=[_rates(case, found, served, bare), _cpu(case, found.served)],
        notes=[
            *caveats(f"{case.name} served", found.served),
            *disturbance(f"{case.name} bare", [result.foreign_cpus for result in found.bare]),
        ],
    )
    total = sum(result.total for result in found.served)
    if found.counted.ok != total:
        report.problems.append(
            f"{case.name}: clients got {total} answers, the daemon counted {found.counted.ok}"
        )
    return report


def _measure(case: Case, settings: Settings) -> _Measured:
    """Both are there all the time, and idle while the other one is measured."""
    model = case.subject(settings.folder)
    payload = predict_payload(model, _REQUESTS)
    profile = settings.profile
    tried = {plan: _try(model, plan, settings) for plan in (*case.plans(), *case.others())}
    best = max(case.plans(), key=lambda plan: tried[plan].per_second)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(model.path, settings.folder, settings.daemon_arguments))
        learn_answer(daemon.target, payload)
        file = payload.save(settings.folder / f"{case.name}.payload")
        generator = stack.enter_context(LoadGenerator(case.generator, 1, settings.folder))
        bare = stack.enter_context(plain(model, settings.folder, best.threads, best.processes))
        roles = daemon.roles()
        before = scrape(daemon.http)

        def once() -> LoadResult:
            return generator.run(
                daemon.target, file, case.shape, profile, roles=lambda: roles, seconds=profile.heavy_seconds
            )

        rounds = [(once(), bare.measure(best.rows, profile.heavy_seconds)) for _ in range(profile.rounds)]
        served, alone = [each for each, _ in rounds], [each for _, each in rounds]
        counted = settled(daemon.http, before.ok + sum(result.total for result in served))
    return _Measured(tried, best, served, alone, counted.since(before))


def _try(model: Subject, plan: BarePlan, settings: Settings) -> LoopResult:
    with plain(model, settings.folder, plan.threads, plan.processes) as loops:
        return loops.measure(plan.rows, settings.profile.heavy_seconds / 2)


def _rates(case: Case, found: _Measured, served: Sequence[float], bare: Sequence[float]) -> Table:
    p50 = statistics.median(result.percentile_us(50) for result in found.served) / 1e3
    rows: list[Sequence[str]] = [
        ("served", Spread.of(served).text(1), f"{p50:.1f}", f"{found.counted.mean_batch:.1f}"),
        (f"bare, {found.best.text}", Spread.of(bare).text(1), "", str(found.best.rows)),
    ]
    for plan, result in found.tried.items():
        rows.append((f"bare, {plan.text}, tried once", f"{result.per_second:.1f}", "", str(plan.rows)))
    title = f"{case.name}: {case.shape.callers} callers with one row each"
    return Table(title, ("", "rows/s", "p50 ms", "mean batch"), rows)


def _cpu(case: Case, served: Sequence[LoadResult]) -> Table:
    cells = [f"{statistics.median(result.cpu_us(role) for result in served):,.0f}" for role in _ROLES]
    return Table(f"{case.name}: CPU µs a row, by role (median)", ("", *_ROLES), [("served", *cells)])
