"""The search on machines that are made up: a truth, noise over it, and a clock that only trials move."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictd.server.measure.statistics import ROUNDS_MIN, Verdict
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.choice import Result, conclude
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.search import FINAL, Search, Trial
from predictd.server.tune.space import Stage, Subject, stages

STAGES = stages(Subject(suffix=".onnx", cores=8, cpus=8, callers=64, max_batch_size=32))
OBJECTIVE = Objective(64)
Truth = Callable[[Candidate], float]


@dataclass
class Machine:
    """A machine under test.

    Attributes:
        truth: Answers a second.
        noise: Of a trial, as the deviation of its logarithm.
        weather: The same, of all trials within some time.
        fails: Candidates that do not work.
    """

    truth: Truth
    noise: float = 0.03
    weather: float = 0.1
    seed: int = 0
    trial_seconds: float = 2.0
    fails: Mapping[Candidate, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.now = 0.0
        self.trials: list[Trial] = []

    def run(self, search: Search, until: int = 10_000) -> Search:
        while len(self.trials) < until and (trial := search.next(self.now)) is not None:
            self.trials.append(trial)
            seconds = self.trial_seconds * (1.5 if trial.whole else 1.0)
            self.now += seconds
            if trial.candidate in self.fails:
                search.failed(trial, self.fails[trial.candidate])
            else:
                search.measured(trial, self._points(trial), seconds)
        return search

    def _points(self, trial: Trial) -> list[Point]:
        weather = 1 + self.weather * math.sin(self.now / 17 + self.seed)
        peak = self.truth(trial.candidate) * weather * self.dice.lognormvariate(0, self.noise)
        ladder = OBJECTIVE.ladder(whole=trial.whole)
        return [Point(n, peak * min(1, n / 16), n / peak, 1.5 * n / peak, 1000) for n in ladder]


def flat(_: Candidate) -> float:
    return 1000.0


def instances_matter(candidate: Candidate) -> float:
    """The more workers the better, and spinning hurts; batches do not matter."""
    gain = 1 + 0.1 * math.log2(int(candidate.values.get("instances", 1)))
    oversubscribed = candidate.values.get("threads") == 8
    return 1000 * gain * (0.7 if oversubscribed else 1) * (1.1 if "spin" in candidate.values else 1)


def tune(machine: Machine, seconds: float = 400, before: Candidate | None = None) -> Result:
    return conclude(machine.run(Search(STAGES, OBJECTIVE, seconds, machine.trial_seconds, before)), OBJECTIVE)


BEST = Candidate.of({"instances": 8, "spin": False})


@pytest.mark.parametrize("seed", range(12))
def test_the_best_is_found_through_noise_and_weather(seed: int) -> None:
    result = tune(Machine(instances_matter, seed=seed))
    assert result.winner is not None
    assert result.confirmed
    assert instances_matter(result.winner) >= 0.93 * instances_matter(BEST)


def test_two_runs_agree_or_say_that_they_tie() -> None:
    for seed in range(10):
        first, second = (tune(Machine(instances_matter, seed=s)) for s in (seed, seed + 100))
        chosen = [{result.winner, *result.ties} for result in (first, second)]
        values = [instances_matter(result.winner) for result in (first, second) if result.winner is not None]
        assert chosen[0] & chosen[1] or min(values) > 0.95 * max(values)


def test_where_nothing_matters_nothing_is_chosen() -> None:
    chosen = [tune(Machine(flat, seed=seed)).winner for seed in range(40)]
    # Each is wrong with a probability of about 3%, and must be so by more than the margin besides.
    assert sum(winner is not None for winner in chosen) <= 4


def test_a_tie_is_said() -> None:
    def twins(candidate: Candidate) -> float:
        return 1500.0 if {"instances", "threads"} & candidate.values.keys() else 1000.0

    few = (Stage("instances and threads", ({"instances": 2}, {"threads": 1})),)
    result = conclude(Machine(twins).run(Search(few, OBJECTIVE, 120, 2.0)), OBJECTIVE)
    assert result.winner is not None
    assert {result.winner, *result.ties} == {Candidate.of(move) for move in few[0].moves}


def test_of_equals_the_simpler_is_chosen() -> None:
    def spin_is_nothing(candidate: Candidate) -> float:
        return 1500.0 if candidate.values.get("instances") == 2 else 1000.0

    simple, more = Candidate.of({"instances": 2}), Candidate.of({"instances": 2, "spin": False})
    few = (Stage("both", (more.values, simple.values)),)
    for seed in range(5):
        result = conclude(
            Machine(spin_is_nothing, seed=seed).run(Search(few, OBJECTIVE, 120, 2.0)), OBJECTIVE
        )
        assert (result.winner, result.ties) == (simple, (more,))


def test_the_default_is_in_every_round_and_nobody_is_always_first() -> None:
    machine = Machine(instances_matter)
    machine.run(Search(STAGES, OBJECTIVE, 400, 2.0))
    rounds: dict[tuple[str, int], list[Candidate]] = {}
    for trial in machine.trials:
        rounds.setdefault((trial.stage, trial.round), []).append(trial.candidate)
    for candidates in rounds.values():
        assert len(candidates) == len(set(candidates))
    final = [candidates for (stage, _), candidates in rounds.items() if stage == FINAL]
    assert len(final) >= ROUNDS_MIN
    assert all(set(candidates) == set(final[0]) and DEFAULT in candidates for candidates in final)
    assert len({candidates[0] for candidates in final}) == len(final[0])


def test_what_does_not_work_is_named_and_tried_once() -> None:
    bad = Candidate.of({"instances": 8})
    machine = Machine(instances_matter, fails={bad: "it crashed"})
    result = tune(machine)
    assert [(failure.candidate, failure.reason) for failure in result.failures] == [(bad, "it crashed")]
    assert [trial.candidate for trial in machine.trials].count(bad) == 1
    assert bad not in {row.candidate for row in result.rows}
    assert result.winner is not None


def test_a_round_in_which_the_default_failed_is_lost_and_no_more() -> None:
    machine = Machine(instances_matter)
    search = Search(STAGES, OBJECTIVE, 400, 2.0)
    machine.run(search, until=8)
    trial = search.next(machine.now)
    while trial is not None and trial.candidate != DEFAULT:
        search.measured(trial, machine._points(trial), 2.0)
        trial = search.next(machine.now)
    assert trial is not None
    search.failed(trial, "the machine was rebooted")
    result = conclude(machine.run(search), OBJECTIVE)
    assert result.winner is not None
    assert result.rows[0].candidate == DEFAULT


def test_too_little_time_is_said_and_nothing_chosen() -> None:
    result = tune(Machine(instances_matter, trial_seconds=20), seconds=60)
    assert (result.winner, result.complete) == (None, False)


def test_an_interrupt_keeps_the_best_so_far_unconfirmed() -> None:
    machine = Machine(instances_matter, noise=0.001)
    search = machine.run(Search(STAGES, OBJECTIVE, 400, 2.0), until=26)
    result = conclude(search, OBJECTIVE, interrupted=True)
    assert result.winner is not None
    assert not result.confirmed
    assert instances_matter(result.winner) > 1.15 * instances_matter(DEFAULT)
    one_round = Machine(instances_matter).run(Search(STAGES, OBJECTIVE, 400, 2.0), until=8)
    assert conclude(one_round, OBJECTIVE, interrupted=True).winner is None
    nothing = conclude(Search(STAGES, OBJECTIVE, 400, 2.0), OBJECTIVE, interrupted=True)
    assert (nothing.winner, nothing.rows) == (None, ())


def test_what_was_found_before_takes_part_at_the_end() -> None:
    before = Candidate.of({"threads": 3})
    machine = Machine(lambda candidate: 2000.0 if candidate == before else 1000.0)
    assert tune(machine, before=before).winner == before
    assert all(trial.stage == FINAL for trial in machine.trials if trial.candidate == before)


def test_a_latency_that_only_one_keeps() -> None:
    slo = Objective(64, slo_seconds=0.01)
    few = (Stage("delay", ({"max_delay_ns": 1},)),)
    search = Search(few, slo, 120, 2.0)
    now = 0.0
    while (trial := search.next(now)) is not None:
        p99 = 0.02 if trial.candidate == DEFAULT else 0.005
        search.measured(trial, [Point(1, 100.0, p99 / 2, p99, 1000)], 2.0)
        now += 2.0
    result = conclude(search, slo)
    assert result.winner == Candidate.of({"max_delay_ns": 1})
    against = next(row.against for row in result.rows if row.candidate == result.winner)
    assert against is not None
    assert (against.ratio, against.verdict) == (math.inf, Verdict.BETTER)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1, 600),
    st.floats(0.1, 30),
    st.integers(0, 1000),
    st.lists(st.integers(1, 5), max_size=4),
)
def test_the_time_is_kept_and_every_search_ends(
    budget: float, trial_seconds: float, seed: int, sizes: list[int]
) -> None:
    made = tuple(
        Stage(f"stage {at}", tuple({"threads": at * 10 + n + 1} for n in range(size)))
        for at, size in enumerate(sizes)
    )
    machine = Machine(flat, seed=seed, trial_seconds=trial_seconds)
    search = machine.run(Search(made, OBJECTIVE, budget, trial_seconds))
    assert machine.trials
    # The first trial is made in any case; what follows may take a little longer than was expected.
    assert machine.now <= max(budget, 1.5 * trial_seconds) + 1.5 * trial_seconds
    result = conclude(search, OBJECTIVE)
    assert result.rows[0].candidate == DEFAULT


def test_what_is_clear_takes_no_longer_than_it_must() -> None:
    def twice(candidate: Candidate) -> float:
        return 1000.0 if candidate == DEFAULT else 2000.0

    few = (Stage("spinning", ({"spin": False},)),)
    machine = Machine(twice)
    result = conclude(machine.run(Search(few, OBJECTIVE, 1000, 2.0)), OBJECTIVE)
    assert result.winner == Candidate.of({"spin": False})
    assert len(machine.trials) == 2 * ROUNDS_MIN
    machine = Machine(flat)
    machine.run(Search(few, OBJECTIVE, 1000, 2.0))
    assert len(machine.trials) > 2 * ROUNDS_MIN


def test_the_ladder_and_the_score() -> None:
    assert OBJECTIVE.ladder(whole=False) == (64,)
    assert OBJECTIVE.ladder(whole=True) == (1, 4, 16, 64)
    assert Objective(1).ladder(whole=True) == (1,)
    slo = Objective(24, slo_seconds=0.1)
    assert slo.ladder(whole=False) == (1, 2, 4, 8, 16, 24)
    quick, late = Point(1, 10, 0.01, 0.05, 100), Point(2, 18, 0.05, 0.2, 100)
    assert slo.goes_on([])
    assert slo.goes_on([quick])
    assert not slo.goes_on([quick, late])
    assert slo.score([quick, late]) == 10
    assert slo.score([late]) == 0
    assert OBJECTIVE.score([quick, late]) == 18
