"""What a search found, in words: a table for people and plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from predictd.server.config.tuned import Here, Tuned, table_of
from predictd.server.measure.plot import Curve, Mark, plot
from predictd.server.measure.quantities import number
from predictd.server.measure.table import table as markdown
from predictd.server.tune.candidate import DEFAULT
from predictd.server.tune.choice import Result, Row
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.search import FINAL

_HEAD = (
    "settings",
    "answers/s",
    "against the default",
    "rounds",
    "p50",
    "p99",
    "callers",
    "one caller",
    "verdict",
)


def table(result: Result) -> str:
    """All candidates that were measured, as Markdown."""
    return markdown(_HEAD, map(_cells, result.rows))


def _cells(row: Row) -> tuple[str, ...]:
    against, best = row.against, row.best
    single = next((point for point in row.points if point.callers == 1), None)
    return (
        str(row.candidate),
        "0" if best is None else number(best.per_second, 4),
        ""
        if against is None
        else f"{_factor(against.ratio)} ({_factor(against.low)}-{_factor(against.high)})",
        "" if against is None else str(against.rounds),
        "" if best is None else _milliseconds(best.p50_seconds),
        "" if best is None else _milliseconds(best.p99_seconds),
        "" if best is None else str(best.callers),
        "" if single is None else _milliseconds(single.p50_seconds),
        "" if against is None else against.verdict.value if row.stage == FINAL else "left behind",
    )


def _factor(ratio: float) -> str:
    return number(ratio, 3) if math.isfinite(ratio) else "∞"


def _milliseconds(seconds: float) -> str:
    return f"{number(seconds * 1e3, 3)} ms"


def conclusion(result: Result, objective: Objective) -> Iterator[str]:
    """What it means, in lines."""
    for failure in result.failures:
        yield f"cannot be used: {failure.candidate}: {failure.reason}"
    winner = next((row for row in result.rows if row.candidate == result.winner), None)
    if winner is not None and winner.against is not None:
        goal = (
            "answers"
            if objective.slo_seconds is None
            else f"answers within {objective.slo_seconds * 1e3:g} ms"
        )
        gain = (
            f"{_factor(winner.against.ratio)} times the {goal} of the default"
            if math.isfinite(winner.against.ratio)
            else f"{goal}, which the default does not give"
        )
        sure = "" if result.confirmed else f", not confirmed: only {winner.against.rounds} rounds"
        yield f"best: {winner.candidate}: {gain}{sure}"
    elif result.complete:
        yield "nothing was better than the default"
    elif any(row.against is not None for row in result.rows) and not any(map(_promising, result.rows)):
        yield "nothing looked better than the default; too few rounds to be sure: give it more time with --for"
    else:
        yield "too few rounds to tell anything from the default: give it more time with --for"
    for tie in result.ties:
        yield f"as good: {tie}; another run may choose it"


def _promising(row: Row) -> bool:
    return row.against is not None and row.against.ratio > 1


def data(result: Result, objective: Objective, tuned: Tuned, model: str, key: str) -> dict[str, Any]:
    """Everything as JSON has it. Whoever serves reads `model.key` and `tuned`; the rest is evidence."""
    return {
        "model": {"name": model, "key": key},
        "tuned": table_of(tuned),
        "confirmed": result.confirmed,
        "objective": {"callers": objective.callers, "latency_slo_seconds": objective.slo_seconds},
        "measured": [_row_data(row) for row in result.rows],
        "ties": [str(candidate) for candidate in result.ties],
        "unusable": [{"settings": str(f.candidate), "reason": f.reason} for f in result.failures],
    }


def _row_data(row: Row) -> dict[str, Any]:
    against = row.against
    return {
        "settings": str(row.candidate),
        "stage": row.stage,
        "against_default": None
        if against is None
        else {
            "ratio": _number(against.ratio),
            "low": _number(against.low),
            "high": _number(against.high),
            "rounds": against.rounds,
            "verdict": against.verdict.value,
        },
        "points": [_point_data(point) for point in row.points],
    }


def _number(ratio: float) -> float | None:
    """JSON has no infinity."""
    return ratio if math.isfinite(ratio) else None


def _point_data(point: Point) -> dict[str, float]:
    return {
        "callers": point.callers,
        "answers_per_second": point.per_second,
        "p50_seconds": point.p50_seconds,
        "p99_seconds": point.p99_seconds,
        "answers": point.answers,
    }


def picture(result: Result, objective: Objective, model: str, here: Here) -> str | None:
    """The plot of the candidates of the last stage; of the default and the winner if it was not reached."""
    shown = [row for row in result.rows if row.stage == FINAL or row.candidate in (DEFAULT, result.winner)]
    curves = [Curve(str(row.candidate), tuple(map(_mark, row.points))) for row in shown if row.points]
    return plot(f"{model} on {here}", curves, objective.slo_seconds) if curves else None


def _mark(point: Point) -> Mark:
    callers = f"{point.callers} caller{'' if point.callers == 1 else 's'}"
    return Mark(point.per_second, point.p99_seconds, callers)
