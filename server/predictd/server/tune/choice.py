"""What a search found: its result, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from predictd.server.measure.statistics import MARGIN, ROUNDS_MIN, Comparison, Verdict, compare
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.search import FINAL, Failure, Search

# An interrupted search has few rounds; a candidate that was better in this many, and always, is kept.
_KEPT_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate as the report shows it.

    Attributes:
        candidate: Its settings.
        stage: Where it was measured last.
        against: Compared with the default in that stage; None if they were never measured side by side.
        points: For each number of callers the medians of all rounds, ascending.
        best: The point that its score comes from; None if no answer was in time.
    """

    candidate: Candidate
    stage: str
    against: Comparison | None
    points: tuple[Point, ...]
    best: Point | None


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        winner: What is better than the default; None if nothing is.
        confirmed: The last stage says so; otherwise it is what was best when the search ended early.
        ties: Candidates that are as good as the winner, so that another run may choose them.
        rows: The default first, then the candidates of the last stage, then the others, best first.
        failures: Candidates that do not work.
        complete: The last stage had as many rounds as it takes to tell.
    """

    winner: Candidate | None
    confirmed: bool
    ties: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    complete: bool


def conclude(search: Search, objective: Objective, *, interrupted: bool = False) -> Result:
    """What a search says.

    Args:
        search: At its end, or wherever it was interrupted.
        objective: What was wanted.
        interrupted: Keep the best so far, if that is too early to be sure.
    """
    stages = _last_stages(search)
    rows = [_row(search, objective, candidate, stage) for candidate, stage in stages.items()]
    rows.sort(key=_standing)
    finals = [row for row in rows if row.stage == FINAL]
    judged = [(row.candidate, row.against) for row in finals if row.against is not None]
    # Where no candidate was ever compared the time was up, unless none of them works.
    compared = any(row.against is not None for row in rows) or bool(search.failures)
    complete = bool(finals) and compared and all(against.rounds >= ROUNDS_MIN for _, against in judged)
    better = [candidate for candidate, against in judged if against.verdict is Verdict.BETTER]
    winner, ties = _choose(search, better)
    confirmed = winner is not None
    if winner is None and interrupted and not complete:
        winner = _best_so_far(rows)
    return Result(winner, confirmed, ties, tuple(rows), tuple(search.failures), complete)


def _last_stages(search: Search) -> dict[Candidate, str]:
    """Where each candidate that works was measured last."""
    failing = {failure.candidate for failure in search.failures} - {DEFAULT}
    stages = {s.trial.candidate: s.trial.stage for s in search.samples if s.trial.candidate not in failing}
    # Rounds of the last stage are compared even when it had just begun, but not before that.
    return {
        candidate: stage
        for candidate, stage in stages.items()
        if candidate == DEFAULT or search.ratios(candidate, stage=stage)
    }


def _choose(search: Search, better: Sequence[Candidate]) -> tuple[Candidate | None, tuple[Candidate, ...]]:
    """Of those that are better than the default, the simplest that is as good as the best."""
    if not better:
        return None, ()
    best = max(better, key=lambda candidate: median(search.ratios(candidate)))
    equal = [c for c in better if c == best or _as_good(search, c, best)]
    winner = min(equal, key=lambda candidate: (len(candidate.settings), candidate != best))
    return winner, tuple(candidate for candidate in equal if candidate != winner)


def _as_good(search: Search, candidate: Candidate, best: Candidate) -> bool:
    ratios = search.ratios(candidate, best)
    return bool(ratios) and compare(ratios).verdict is not Verdict.WORSE


def _best_so_far(rows: Sequence[Row]) -> Candidate | None:
    kept = [
        row
        for row in rows
        if row.against is not None and row.against.rounds >= _KEPT_ROUNDS and row.against.low > 1 + MARGIN
    ]
    best = max(kept, key=lambda row: row.against.ratio if row.against else 0.0, default=None)
    return None if best is None else best.candidate


def _row(search: Search, objective: Objective, candidate: Candidate, stage: str) -> Row:
    runs = [s.points for s in search.samples if s.trial.candidate == candidate and s.trial.stage == stage]
    ratios = search.ratios(candidate, stage=stage)
    levels: dict[int, list[Point]] = {}
    for points in runs:
        for point in points:
            levels.setdefault(point.callers, []).append(point)
    points = tuple(_middle(levels[callers]) for callers in sorted(levels))
    against = compare(ratios) if ratios and candidate != DEFAULT else None
    return Row(candidate, stage, against, points, objective.best(points))


def _middle(points: Sequence[Point]) -> Point:
    return Point(
        points[0].callers,
        median(point.per_second for point in points),
        median(point.p50_seconds for point in points),
        median(point.p99_seconds for point in points),
        sum(point.answers for point in points),
    )


def _standing(row: Row) -> tuple[bool, bool, float]:
    return (
        row.candidate != DEFAULT,
        row.stage != FINAL,
        -(row.against.ratio if row.against is not None else 0.0),
    )
