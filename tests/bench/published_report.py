"""What the published benchmark found of a model, as ratios and tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np

from tests.bench import published
from tests.bench.machine import caveats, disturbance
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from tests.bench.cases import Case
    from tests.bench.published import Life, Measured, Windows
    from tests.bench.settings import Settings

_ROLES = ("supervisor", "front ends", "workers", "clients")
# Of each request.
_HEAD = ("", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", *(f"CPU µs {role}" for role in _ROLES))
_MIB = 2**20
_LATE_SECONDS = 1e-3


def run(case: Case, settings: Settings) -> Report:
    """Measure and tell."""
    found, life = published.measure(case, settings)
    return Report(
        ratios=list(_ratios(case, found)),
        tables=[_life(case, found, life), _loads(case, found), _bare(case, found)],
        notes=list(_notes(case, found)),
        problems=[f"{case.name}: {problem}" for problem in found.wrong_counts()],
    )


def _ratios(case: Case, found: Measured) -> Iterator[Ratio]:
    aims = case.aims
    over_echo = ratio_of_rounds(found.most.rates(), found.echo_most.rates())
    yield _at_least(f"{case.name}: requests/s over grpc.aio echo", over_echo, aims.over_echo)
    over_bare = ratio_of_rounds(found.most.rates(), [each.per_second for each in found.bare])
    yield _at_least(f"{case.name}: requests/s over the bare engine", over_bare, aims.over_bare)
    for percent, aim in ((50, aims.alone_over_echo), (99, None)):
        served, echoed = (
            [each.percentile_us(percent) for each in side.results] for side in (found.alone, found.echo_alone)
        )
        name = f"{case.name}: one caller's p{percent} over grpc.aio echo"
        spread = ratio_of_rounds(served, echoed)
        yield Ratio(name, spread, aim or 0.0, None if aim is None else "below")
    yield _at_least(
        f"{case.name}: answers in time at twice the load, over saturation", Spread.of(found.in_time), None
    )


def _at_least(name: str, spread: Spread, aim: float | None) -> Ratio:
    return Ratio(name, spread, aim or 0.0, None if aim is None else "above")


def _loads(case: Case, found: Measured) -> Table:
    callers = case.most.callers
    rows = [
        _row("one caller", found.alone),
        _row("one caller of echo", found.echo_alone),
        _row(f"{callers} callers", found.most),
        _row(f"{callers} callers of echo", found.echo_most),
        _row(f"open loop, {published.HALF:.0%}", found.half, found.half.open_rates()),
        _row(f"open loop, {published.MOST_OF_IT:.0%}", found.most_of_it, found.most_of_it.open_rates()),
        _row(f"open loop, {published.OVERLOAD:.0%}", found.overload, found.overload.open_rates()),
    ]
    return Table(f"{case.name}: {case.about}", _HEAD, rows)


def _row(name: str, windows: Windows, rates: Sequence[float] | None = None) -> Sequence[str]:
    latencies = windows.latencies_ns()
    percentiles = [_percentile_ms(latencies, percent) for percent in (50.0, 99.0, 99.9)]
    return (
        name,
        Spread.of(windows.rates() if rates is None else rates).text(0),
        *percentiles,
        *(f"{windows.cpu_us(role):,.0f}" for role in _ROLES),
    )


def _percentile_ms(latencies_ns: npt.NDArray[np.int64], percent: float) -> str:
    """Empty where no answer lies beyond it: that would be the largest by another name."""
    if len(latencies_ns) * (1 - percent / 100) < 1:
        return ""
    return f"{float(np.percentile(latencies_ns, percent)) / 1e6:.2f}"


def _bare(case: Case, found: Measured) -> Table:
    batches = statistics.median(each.mean_batch for each in found.counted)
    rates = [each.per_second for each in found.bare]
    rows: list[Sequence[str]] = [
        (f"served to {case.most.callers} callers", Spread.of(found.most.rates()).text(1), f"{batches:.1f}"),
        (f"bare, {found.best.text}", Spread.of(rates).text(1), str(found.best.rows)),
    ]
    for plan, result in found.tried.items():
        rows.append((f"bare, {plan.text}, tried once", f"{result.per_second:,.1f}", str(plan.rows)))
    return Table(f"{case.name}: over the engine alone", ("", "rows/s", "mean batch"), rows)


def _life(case: Case, found: Measured, life: Life) -> Table:
    reloads = life.reloads
    head = (
        *("", "exec to ready s", "MiB when ready", "after the load"),
        *("before reloads", "after them", "reloads", "s each", "in time/s at 200%", "refused/s"),
    )
    over = found.overload.results
    in_time = [each.per_second_within(case.deadline_seconds) for each in over]
    row = (
        case.name,
        f"{life.ready_seconds:.2f}",
        *(
            f"{size / _MIB:.0f}"
            for size in (
                life.ready_bytes,
                life.loaded_bytes,
                reloads.before_bytes,
                reloads.after_bytes,
            )
        ),
        str(reloads.count),
        f"{reloads.seconds:.2f}",
        Spread.of(in_time).text(0),
        f"{statistics.median(each.refused / each.seconds for each in over):,.0f}",
    )
    # The same for all models: they share a table.
    return Table("Start, memory (PSS of all processes) and overload", head, [row])


def _notes(case: Case, found: Measured) -> Iterator[str]:
    loads = (found.alone, found.most, found.half, found.most_of_it, found.overload)
    for windows in loads:
        late = max(each.late_seconds for each in windows.results)
        latencies = windows.latencies_ns()
        p99 = float(np.percentile(latencies, 99)) / 1e9 if len(latencies) else 0.0
        if late > max(_LATE_SECONDS, p99):
            yield f"{case.name}: the client sent a request {late * 1e3:.1f} ms late."
    for share, windows in ((0.5, found.half), (0.8, found.most_of_it)):
        refused = sum(each.refused for each in windows.results)
        if refused:
            total = refused + sum(each.total for each in windows.results)
            yield f"{case.name}, open loop, {share:.0%}: {refused:,} of {total:,} requests were refused."
    yield from caveats(case.name, [each for windows in loads for each in windows.results])
    yield from disturbance(f"{case.name}, bare engine", [each.foreign_cpus for each in found.bare])
