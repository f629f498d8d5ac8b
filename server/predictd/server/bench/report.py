"""A bench as a table for people, and two of them side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from predictd.server.bench.results import FORMAT, QUANTILES, Point, Quantile, Result, SloResult
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.quantities import number, seconds
from predictd.server.measure.statistics import ratio
from predictd.server.measure.table import table

_HEAD = ("load", "answers/s", "± 95%", "mean", *QUANTILES, "max", "errors", "busiest client")
_ERRORS_SHOWN = 5


def text(result: Result) -> Iterator[str]:
    """The report, in blocks of lines."""
    yield f"{', '.join(result.models)} on {result.target}, {result.how}"
    yield table(_HEAD, map(_cells, result.points))
    if any(point.batches for point in result.points):
        yield table(
            ("load", "runs", "rows", "rows a run", "runs by rows"),
            [_batch_cells(point) for point in result.points],
        )
    if any(point.models for point in result.points):
        yield table(("load", "model", "answers", "p50", "p99"), _model_rows(result.points))
    if result.slo is not None:
        yield slo_text(result.slo)
    if found := "\n".join(notes(result)):
        yield found


def _cells(point: Point) -> tuple[str, ...]:
    spread = (point.per_second_high - point.per_second_low) / 2
    known = [point.quantiles.get(name) for name in QUANTILES]
    return (
        point.label,
        number(point.per_second, 5),
        number(spread, 3),
        seconds(point.mean_seconds),
        *("" if each is None else seconds(each.seconds) for each in known),
        seconds(point.max_seconds),
        str(sum(point.errors.values()) + point.unanswered),
        f"{point.client.busiest_cpu:.0%}",
    )


def _batch_cells(point: Point) -> tuple[str, ...]:
    found = point.batches
    if found is None:
        return (point.label, "", "", "", "")
    runs = ", ".join(f"≤{rows}: {count}" for rows, count in found.by_rows.items())
    return (point.label, str(found.runs), str(found.rows), f"{found.mean:.2f}", runs)


def _model_rows(points: list[Point]) -> Iterator[tuple[str, ...]]:
    for point in points:
        for model in point.models:
            yield (
                point.label,
                model.name,
                str(model.answers),
                seconds(model.p50_seconds),
                seconds(model.p99_seconds),
            )


def notes(result: Result) -> Iterator[str]:
    """What a reader must know to judge the numbers."""
    for point in result.points:
        for reason in point.client.bottleneck:
            yield f"note: {point.label}: the load generator was the bottleneck: {reason}"
        if not point.steady:
            yield f"note: {point.label}: not steady after {seconds(point.warm_up_seconds)} of warm-up"
        if point.overloaded:
            yield (
                f"note: {point.label}: only {number(point.per_second, 5)} a second were answered: the latencies grow "
                "with the time of the measurement"
            )
        for reason, count in sorted(point.errors.items(), key=lambda each: -each[1])[:_ERRORS_SHOWN]:
            yield f"note: {point.label}: {count} times {reason}"
        if point.unanswered:
            yield f"note: {point.label}: {point.unanswered} requests were never answered"


def slo_text(slo: SloResult) -> str:
    """What a search found, as a sentence."""
    limit = f"{slo.quantile} of at most {seconds(slo.limit_seconds)}"
    if slo.rate is None:
        return f"no rate has a {limit}; the lowest tried was {number(slo.failed_rate or 0, 5)}/s"
    above = "" if slo.failed_rate is None else f"; {number(slo.failed_rate, 5)}/s does not"
    return f"{number(slo.rate, 5)}/s has a {limit}{above}"


def read(path: Path) -> Result:
    """What `--json` printed. Raises MeasureError for anything else."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise MeasureError(f"{path}: {str(error.strerror or error).lower()}") from error
    except msgspec.DecodeError as error:
        raise MeasureError(f"{path}: not the JSON of a bench over the network: {error}") from error
    if result.format != FORMAT:
        raise MeasureError(f"{path}: written by another version of predictd (format {result.format})")
    return result


def compare(one: Result, other: Result) -> Iterator[str]:
    """Two benches, load by load. A difference counts where the intervals of confidence do not meet.

    Raises:
        MeasureError: They have no load in common.
    """
    by_label = {point.label: point for point in other.points}
    pairs = [(point, by_label[point.label]) for point in one.points if point.label in by_label]
    if not pairs:
        raise MeasureError("the two have no load in common")
    yield "\n".join(
        f"{name}: {', '.join(each.models)} on {each.target}, {each.how}, {each.began}"
        for name, each in (("A", one), ("B", other))
    )
    rows = [row for pair in pairs for row in _compared(*pair)]
    yield table(("load", "", "A", "B", "B / A", "B is"), rows)
    for name, result in (("A", one), ("B", other)):
        yield from (f"{name} {note}" for note in notes(result))


def _compared(a: Point, b: Point) -> Iterator[tuple[str, ...]]:
    higher = _verdict(
        a.per_second_high < b.per_second_low, a.per_second_low > b.per_second_high, "faster", "slower"
    )
    rates = (number(a.per_second, 5), number(b.per_second, 5), f"{ratio(b.per_second, a.per_second):.3f}")
    yield (a.label, "answers/s", *rates, higher)
    for name in QUANTILES:
        before, after = a.quantiles.get(name), b.quantiles.get(name)
        if before is not None and after is not None:
            yield (
                a.label,
                name,
                seconds(before.seconds),
                seconds(after.seconds),
                f"{ratio(after.seconds, before.seconds):.3f}",
                _judged(before, after),
            )


def _judged(a: Quantile, b: Quantile) -> str:
    ends = a.low_seconds, a.high_seconds, b.low_seconds, b.high_seconds
    if any(end is None for end in ends):
        return "unsure"
    a_low, a_high, b_low, b_high = (end or 0.0 for end in ends)
    return _verdict(b_high < a_low, b_low > a_high, "faster", "slower")


def _verdict(better: bool, worse: bool, good: str, bad: str) -> str:
    if better:
        return good
    return bad if worse else "the same"
