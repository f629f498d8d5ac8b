"""A bench as one HTML page that needs nothing else: no scripts, no fonts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from predictd.server.bench.charts import Axis, Line, bars, lines
from predictd.server.bench.report import notes, slo_text
from predictd.server.bench.results import QUANTILES, Point, Result
from predictd.server.measure.quantities import number, seconds

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #666; --back: #fff; --grid: #ddd; --limit: #c00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --soft: #a0a0a0; --back: #161616; --grid: #3a3a3a; --limit: #ff6b6b; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.soft { color: var(--soft); }
svg { width: 100%; height: auto; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg line, polyline { fill: none; stroke-width: 2; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .limit { stroke: var(--limit); stroke-dasharray: 6 4; }
"""
# Distinct also to those who do not tell red from green (Okabe and Ito), and legible on light and dark.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6fdf", "#888888")
_NINES = (
    (1.0, "0%"),
    (2.0, "50%"),
    (10.0, "90%"),
    (100.0, "99%"),
    (1e3, "99.9%"),
    (1e4, "99.99%"),
    (1e5, "99.999%"),
)


def html(result: Result) -> str:
    """The page."""
    colours = "".join(
        f".c{number} {{ stroke: {colour}; }} .fill.c{number} {{ fill: {colour}; stroke: none; }}\n"
        for number, colour in enumerate(_COLOURS)
    )
    title = escape(f"{', '.join(result.models)} on {result.target}")
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}{colours}</style></head><body>"
    )
    return "\n".join((head, f"<h1>{title}</h1>", *_body(result), "</body></html>", ""))


def _body(result: Result) -> Iterator[str]:
    about = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    yield f'<p class="soft">{escape(result.began)}. {escape(result.how)}. Machine: {escape(about)}.</p>'
    if result.slo is not None:
        yield f"<p><strong>{escape(slo_text(result.slo))}</strong></p>"
    found = list(notes(result))
    if found:
        yield "<ul>" + "".join(f"<li>{escape(note.removeprefix('note: '))}</li>" for note in found) + "</ul>"
    yield _table(result.points)
    yield "<h2>Latency by throughput</h2>" + _throughput(result)
    yield "<h2>Latency by percentile</h2>" + _percentiles(result.points)
    if any(point.batches for point in result.points):
        yield "<h2>Batches</h2>" + _batches(result.points)


def _table(points: Sequence[Point]) -> str:
    head = ("load", "answers/s", "95% interval", "mean", *QUANTILES, "max", "errors", "busiest client")
    rows = [
        (
            point.label,
            number(point.per_second, 5),
            f"{number(point.per_second_low, 5)} to {number(point.per_second_high, 5)}",
            seconds(point.mean_seconds),
            *(seconds(q.seconds) if (q := point.quantiles.get(name)) else "" for name in QUANTILES),
            seconds(point.max_seconds),
            str(sum(point.errors.values()) + point.unanswered),
            f"{point.client.busiest_cpu:.0%}",
        )
        for point in points
    ]
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _throughput(result: Result) -> str:
    """Of closed and open loops apart: their points do not lie on one line."""
    curves = []
    for way, of_way in (("callers", True), ("rate", False)):
        points = [point for point in result.points if bool(point.callers) == of_way]
        for name in ("p50", "p99", "p99.9"):
            places = [
                (point.per_second, found.seconds * 1e3, f"{point.label}: {name} {seconds(found.seconds)}")
                for point in points
                if (found := point.quantiles.get(name)) is not None
            ]
            if places:
                curves.append(Line(f"{name} ({way})", tuple(places)))
    limit = None
    if result.slo is not None:
        limit = (result.slo.limit_seconds * 1e3, f"{result.slo.quantile} limit")
    return lines(curves, Axis("answers a second"), Axis("latency, ms", log=True), limit)


def _percentiles(points: Sequence[Point]) -> str:
    curves = [
        Line(
            point.label,
            tuple(
                (
                    1 / (1 - each.q),
                    max(each.seconds, 1e-6) * 1e3,
                    f"{point.label}: {each.q:.5%} {seconds(each.seconds)}",
                )
                for each in point.curve
            ),
        )
        for point in points
        if point.curve
    ]
    most = max((place[0] for curve in curves for place in curve.points), default=1.0)
    marks = [mark for mark in _NINES if mark[0] <= most]
    if len(marks) < len(_NINES):
        marks.append(_NINES[len(marks)])
    return lines(
        curves, Axis("percentile of the answers", log=True, marks=tuple(marks)), Axis("latency, ms", log=True)
    )


def _batches(points: Sequence[Point]) -> str:
    found = [(point.label, point.batches) for point in points if point.batches is not None]
    told = ", ".join(f"{label}: {batches.mean:.2f}" for label, batches in found)
    groups = [(label, list(batches.by_rows.items())) for label, batches in found]
    return f"<p>Rows of an average run, the warm-up included: {escape(told)}.</p>{bars(groups)}"
