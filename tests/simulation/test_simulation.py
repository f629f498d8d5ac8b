"""The daemon in simulated worlds: whatever goes wrong when, nothing is lost, doubled, mixed up or kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.coverage import STAGES, UNSENT
from tests.simulation.play import describe, play, search, shrink
from tests.simulation.schedule import Trouble, draw_schedule
from tests.simulation.test_planted_bugs import leaked_block
from tests.simulation.troubles import POINTS

ROOT = Path(__file__).parents[2]
# 10,000 schedules are played by CI beside the tests, and 100,000 by `make soak`.
SCHEDULES = 800
SOAK_SCHEDULES = 100_000
# What the schedules of the short form come to; how often, the report says.
AT_POINTS = (Trouble.KILL_WORKER_AT, Trouble.KILL_FRONTEND_AT, Trouble.CANCEL_AT)
EXPECTED = {
    *(f"{trouble.name} {point}" for trouble in AT_POINTS for point in POINTS),
    *(
        f"{what} during a {situation}"
        for what in ("SWAP", "DRAIN", "KILL_WORKER", "KILL_FRONTEND", "STOP")
        for situation in ("swap", "death")
    ),
    *(f"{what} during a drain" for what in ("SWAP", "KILL_WORKER", "KILL_FRONTEND", "STOP")),
    *(f"cancelled {stage}" for stage in STAGES),
    # Tickets are unsent for a turn of the event loop.
    *(f"front end dies with a ticket {stage}" for stage in STAGES if stage != UNSENT),
    *(f"worker killed: {reason}" for reason in ("stopped", "stuck", "run_timeout")),
    "frontend killed: stopped",
}


def simulate(*arguments: str, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )


def test_many_schedules_violate_nothing() -> None:
    said = simulate("--count", str(SCHEDULES), "--processes", "2")
    assert said.returncode == 0, said.stdout + said.stderr
    *counters, verdict = said.stdout.splitlines()
    assert verdict == f"{SCHEDULES} schedules from seed 0 on: nothing was violated"
    reached = {what for count, what in (line.split(maxsplit=1) for line in counters) if int(count)}
    assert sorted(EXPECTED - reached) == []


@pytest.mark.soak
def test_very_many_schedules_violate_nothing() -> None:
    said = simulate("--first", "1000000", "--count", str(SOAK_SCHEDULES))
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_seed_plays_the_same_each_time_in_whatever_process() -> None:
    first, second = (simulate("--seed", "106", hash_seed=seed) for seed in (1, 2))
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert "dies" in first.stdout


def test_the_schedules_reach_every_kind_of_end_and_every_point() -> None:
    """The tests above would be worth little if nothing happened in them."""
    ended: Counter[str] = Counter()
    points: Counter[str] = Counter()
    troubles: Counter[Trouble] = Counter()
    for seed in range(120):
        played = play(draw_schedule(seed))
        ended += played.ended
        points += played.points
        troubles.update(fault.trouble for fault in played.schedule.faults)
    kinds = ("answered", "cancelled", "InferenceError", "OverloadedError", "DeadlineError")
    assert min(ended[kind] for kind in kinds) > 0, ended
    assert ended["lost with its front end"] > 0
    assert set(POINTS) <= set(points)
    assert set(troubles) == set(Trouble)


def test_a_violation_names_its_seed_and_what_is_left_of_its_schedule() -> None:
    mutations = [leaked_block()]
    found = search(range(100), mutations)
    assert found is not None
    text = describe(found, shrink(found, mutations))
    assert re.match(rf"seed {found.schedule.seed}: not within bounds", text)
    assert f"python -m tests.simulation --seed {found.schedule.seed}" in text
    assert "Asked(" in text
    assert "leaves" in text
