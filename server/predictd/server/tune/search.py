"""The search: which trial is next, and what the trials so far say. Without processes and without a clock.

Theory of operation. A trial starts a daemon with one candidate's settings and measures it. In a stage, the default,
the best so far and all moves from it are tried in rounds, each candidate once a round, and the best by the median of
its ratios to the default goes on to the next stage. These rounds are few, and choose among many, so that noise may
choose; therefore the last stage replays the default and the candidates that the search came by, in as many rounds
as the time allows, and only those decide.

Every stage ends in time for the last one. A trial that could not end in time is not begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from predictd.server.measure.statistics import MARGIN, ROUNDS_MIN, compare, ratio
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.space import Stage

FINAL = "final comparison"
# Of the time, what the stages before the last may take.
_SEARCH_SHARE = 0.55
_STAGE_ROUNDS = 3
_FINAL_ROUNDS = 9
# Of the last stage, in which everything is measured for the record, not the score alone.
_WHOLE_ROUNDS = 2
# Beside the default: what the search ended with, and what it came by.
_FINALISTS = 2
# A difference so large in every round needs no more rounds than it takes to tell.
_CLEAR = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """Something to measure.

    Attributes:
        candidate: Its settings.
        stage: Name of the stage.
        number: Of the stage, from 1.
        round: Within the stage, from 0.
        whole: It is for the record: measure it with all numbers of callers.
    """

    candidate: Candidate
    stage: str
    number: int
    round: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A trial that was measured."""

    trial: Trial
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that does not work.

    Attributes:
        candidate: Its settings.
        reason: Why; one line.
    """

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the search is.

    Attributes:
        stage: Number of the stage, from 1.
        stages: How many there are.
        trial: Number of the trial in the stage, from 1.
        trials: How many there are.
    """

    stage: int
    stages: int
    trial: int
    trials: int


class Search:
    """Owns the state of a search.

    Args:
        stages: From `predictd.server.tune.space.stages`.
        objective: What is wanted.
        budget_seconds: How long it may take.
        trial_seconds: How long a trial is expected to take, before there is one.
        before: What an earlier search found; it takes part in the last stage.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        objective: Objective,
        budget_seconds: float,
        trial_seconds: float,
        before: Candidate | None = None,
    ) -> None:
        moves = [move for stage in stages for move in stage.moves]
        # So few can all take part in the last stage, and need no stage before it.
        self._stages = () if len(moves) <= _FINALISTS else tuple(stages)
        self._few = [Candidate.of(move) for move in moves] if len(moves) <= _FINALISTS else []
        self._objective = objective
        self._budget_seconds = budget_seconds
        self._expected_seconds = trial_seconds
        self._before = before
        self._number = 0
        self._name = ""
        self._queue: deque[Trial] = deque()
        self._planned = 0
        self._field = 1
        # What each stage ended with, the default first.
        self._path = [DEFAULT]
        self._durations: dict[bool, list[float]] = {False: [], True: []}
        self.samples: list[Sample] = []
        self.failures: list[Failure] = []

    @property
    def progress(self) -> Progress:
        """How far it is: the trial that runs now."""
        done = self._planned - len(self._queue)
        return Progress(self._number, len(self._stages) + 1, done, self._planned)

    def next(self, elapsed_seconds: float) -> Trial | None:
        """The next trial; None when the search is over.

        Args:
            elapsed_seconds: Since its beginning.
        """
        while not self._queue or not self._fits(elapsed_seconds) or self._is_clear():
            if self._name == FINAL:
                return None
            self._end_stage()
            self._begin_stage(elapsed_seconds)
        return self._queue.popleft()

    def measured(self, trial: Trial, points: Sequence[Point], seconds: float) -> None:
        """A trial has been measured, and took so long."""
        self.samples.append(Sample(trial, tuple(points)))
        self._durations[trial.whole].append(seconds)

    def failed(self, trial: Trial, reason: str) -> None:
        """A candidate does not work: it is tried no more."""
        candidate = trial.candidate
        self.failures.append(Failure(candidate, reason))
        if candidate == DEFAULT:
            # Without it nothing can be compared; a round without it is lost, no more.
            return
        self._queue = deque(waiting for waiting in self._queue if waiting.candidate != candidate)

    def ratios(self, candidate: Candidate, other: Candidate = DEFAULT, *, stage: str = FINAL) -> list[float]:
        """The scores of a candidate by another's, in the rounds of a stage in which both were measured."""
        scores = {
            (sample.trial.candidate, sample.trial.round): self._objective.score(sample.points)
            for sample in self.samples
            if sample.trial.stage == stage
        }
        rounds = sorted(
            number for which, number in scores if which == candidate and (other, number) in scores
        )
        return [ratio(scores[candidate, number], scores[other, number]) for number in rounds]

    def _fits(self, elapsed_seconds: float) -> bool:
        if not self.samples and not self.failures:
            return True
        limit = self._budget_seconds * (1.0 if self._name == FINAL else _SEARCH_SHARE)
        return elapsed_seconds + self._trial_seconds(whole=self._queue[0].whole) <= limit

    def _is_clear(self) -> bool:
        """A round has ended, and nobody in the last stage needs another."""
        if self._name != FINAL or (self._planned - len(self._queue)) % self._field:
            return False
        rivals = {s.trial.candidate for s in self.samples if s.trial.stage == FINAL} - {DEFAULT}
        compared = [compare(self.ratios(rival)) for rival in self._working(rivals) if self.ratios(rival)]
        return bool(compared) and all(
            one.rounds >= ROUNDS_MIN and (one.low >= 1 + _CLEAR or one.high <= 1 - _CLEAR) for one in compared
        )

    def _trial_seconds(self, *, whole: bool) -> float:
        """How long a trial takes, from those before."""
        if known := self._durations[whole]:
            return median(known[-9:])
        if not whole:
            return self._expected_seconds
        # Starting takes as long, whatever is measured then.
        more = len(self._objective.ladder(whole=True)) / len(self._objective.ladder(whole=False))
        return self._trial_seconds(whole=False) * (1 + (more - 1) / 2)

    def _begin_stage(self, elapsed_seconds: float) -> None:
        self._number += 1
        if self._number <= len(self._stages):
            stage = self._stages[self._number - 1]
            self._name = stage.name
            field = self._working([DEFAULT, self._path[-1], *map(self._path[-1].after, stage.moves)])
            left = len(self._stages) - self._number + 1
            share = (self._budget_seconds * _SEARCH_SHARE - elapsed_seconds) / left
            rounds = _rounds(share, self._trial_seconds(whole=False), len(field), _STAGE_ROUNDS)
        else:
            self._name = FINAL
            field = self._finalists()
            if self._final_rounds(elapsed_seconds, len(field)) < ROUNDS_MIN:
                field = field[:2]
            rounds = self._final_rounds(elapsed_seconds, len(field))
        if len(field) == 1:
            # The default alone: there is nothing to compare it with.
            rounds = 1 if self._name == FINAL else 0
        self._field = len(field)
        self._queue = deque(self._interleaved(field, rounds))
        self._planned = len(self._queue)

    def _final_rounds(self, elapsed_seconds: float, candidates: int) -> int:
        plain = self._trial_seconds(whole=False)
        more = _WHOLE_ROUNDS * candidates * (self._trial_seconds(whole=True) - plain)
        return _rounds(self._budget_seconds - elapsed_seconds - more, plain, candidates, _FINAL_ROUNDS)

    def _interleaved(self, field: Sequence[Candidate], rounds: int) -> Iterable[Trial]:
        """Everybody once a round, and nobody always after the same one."""
        for number in range(rounds):
            shift = number % len(field)
            for candidate in (*field[shift:], *field[:shift]):
                whole = self._name == FINAL and number < _WHOLE_ROUNDS
                yield Trial(candidate, self._name, self._number, number, whole)

    def _end_stage(self) -> None:
        if self._name:
            self._path.append(self._best())
        self._queue.clear()

    def _best(self) -> Candidate:
        """What wins the stage: the best so far, unless another is better by more than it takes."""
        here = self._path[-1]
        ranked = self._ranked(self._name)
        standing = next((middle for middle, candidate in ranked if candidate == here), 0.0)
        best, winner = ranked[0] if ranked else (standing, here)
        return winner if best > standing * (1 + MARGIN) else here

    def _ranked(self, stage: str) -> list[tuple[float, Candidate]]:
        """Everybody in a stage with the median of their ratios to the default, best first."""
        tried = self._working(s.trial.candidate for s in self.samples if s.trial.stage == stage)
        compared = ((self.ratios(candidate, stage=stage), candidate) for candidate in tried)
        ranked = [(median(ratios), candidate) for ratios, candidate in compared if ratios]
        return sorted(ranked, key=lambda pair: -pair[0])

    def _finalists(self) -> list[Candidate]:
        """The default, what the search ended with and came by, latest first, else whoever came closest."""
        before = [] if self._before is None else [self._before]
        ranked = sorted(
            (pair for stage in self._stages for pair in self._ranked(stage.name)), key=lambda p: -p[0]
        )
        closest = (candidate for _, candidate in ranked)
        field = self._working((*self._few, self._path[-1], *before, *reversed(self._path), *closest))
        return [DEFAULT, *[candidate for candidate in field if candidate != DEFAULT][:_FINALISTS]]

    def _working(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Each once, without those that failed; the default stays, as everything is compared with it."""
        bad = {failure.candidate for failure in self.failures} - {DEFAULT}
        return [candidate for candidate in dict.fromkeys(candidates) if candidate not in bad]


def _rounds(seconds: float, trial_seconds: float, candidates: int, most: int) -> int:
    return max(1, min(most, int(seconds / (trial_seconds * candidates))))
