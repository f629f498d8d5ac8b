"""Playing schedules: many of them on all CPUs, or one of them again with its trace."""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tests.simulation.schedule import Schedule, draw_schedule
from tests.simulation.world import Replacement, ViolationError, World

TRACE_LINES = 150
SHRINKS_MAX = 100
COLLECT_EVERY = 10
_REACHED = "reached: "


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a schedule.

    Attributes:
        violation: What must never be, and was; empty if nothing was.
        trace: What happened, a line each.
        ended: How many requests ended how.
        points: How often each point of a worker's work was passed.
        coverage: What happened to whom in which situation, how often.
    """

    schedule: Schedule
    violation: str
    trace: Sequence[str]
    ended: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)


def play(schedule: Schedule, mutations: Sequence[Replacement] = ()) -> Played:
    """Play one schedule."""
    world = World(schedule, mutations)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    violation = ""
    try:
        world.run()
    except ViolationError as error:
        violation = str(error)
    except Exception as error:  # noqa: BLE001 - whatever the product raised where nothing may
        violation = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(disabled)
    return Played(
        schedule, violation, world.lines, Counter(world.client.ended), world.reached, world.coverage.counts
    )


def shrink(played: Played, mutations: Sequence[Replacement] = ()) -> Played:
    """Leave out what faults and requests the violation does without: first many at once, then one by one."""
    tries = SHRINKS_MAX
    size = max(len(played.schedule.parts) // 2, 1)
    with _collecting() as collect:
        while size:
            at = 0
            while tries and at < len(played.schedule.parts):
                tries -= 1
                again = play(played.schedule.without(played.schedule.parts[at : at + size]), mutations)
                if again.violation:
                    played = again
                else:
                    at += size
                collect()
            size //= 2
    return played


def search(
    seeds: Iterable[int], mutations: Sequence[Replacement] = (), parts_max: int | None = None
) -> Played | None:
    """The first schedule that violates anything, as it is; None when none does.

    Args:
        seeds: Of the schedules.
        mutations: Defects to plant.
        parts_max: Play those only that have no more requests and faults together.
    """
    for played in _each(seeds, mutations, parts_max):
        if played.violation:
            return played
    return None


def _each(
    seeds: Iterable[int], mutations: Sequence[Replacement] = (), parts_max: int | None = None
) -> Iterator[Played]:
    with _collecting() as collect:
        for schedule in map(draw_schedule, seeds):
            if parts_max is None or len(schedule.parts) <= parts_max:
                yield play(schedule, mutations)
                collect()


@contextlib.contextmanager
def _collecting() -> Iterator[Callable[[], None]]:
    """Worlds are rings full of descriptors. What was there before is none of theirs and is not looked at."""
    gc.collect()
    gc.freeze()
    played = itertools.count(1)

    def collect() -> None:
        if next(played) % COLLECT_EVERY == 0:
            gc.collect()

    try:
        yield collect
    finally:
        gc.unfreeze()
        gc.collect()


def describe(played: Played, shrunk: Played) -> str:
    """A violation for somebody who has to find its cause."""
    schedule = shrunk.schedule
    lines = [
        f"seed {schedule.seed}: {played.violation}",
        f"again: python -m tests.simulation --seed {schedule.seed}",
        f"with {len(schedule.requests)} requests and {len(schedule.faults)} faults: {shrunk.violation}",
        *(f"  {one}" for one in (*schedule.requests, *schedule.faults)),
        f"  {replace(schedule, requests=(), faults=())}",
        *shrunk.trace[-TRACE_LINES:],
    ]
    return "\n".join(lines)


def replay(seed: int) -> int:
    """Play one seed and print what happened."""
    played = play(draw_schedule(seed))
    if played.violation:
        print(describe(played, shrink(played)))
        return 1
    print("\n".join(played.trace))
    print(f"seed {seed}: nothing was violated; {dict(played.ended)}")
    return 0


def part(first: int, count: int, step: int) -> int:
    """Play some seeds in this process. Stops at the first violation."""
    reached: Counter[str] = Counter()
    for played in _each(range(first, first + count, step)):
        reached.update(played.coverage)
        reached.update({f"ended {how}": times for how, times in played.ended.items()})
        if played.violation:
            print(describe(played, shrink(played)))
            return 1
    print(_REACHED + json.dumps(reached))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 1 when something was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, with its trace")
    parser.add_argument("--first", type=int, default=0, help="the first of many (default: 0)")
    parser.add_argument("--count", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="how many at once"
    )
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options.seed)
    if options.step is not None:
        return part(options.first, options.count, options.step)
    return _share(options.first, options.count, options.processes)


def _share(first: int, count: int, processes: int) -> int:
    """Deal the seeds to processes, each of which takes every so many."""
    commands = [
        [
            *(sys.executable, "-m", "tests.simulation"),
            *("--first", str(first + at), "--count", str(count - at), "--step", str(processes)),
        ]
        for at in range(min(processes, count))
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    reached: Counter[str] = Counter()
    for process in running:
        for line in process.communicate()[0].splitlines():
            if line.startswith(_REACHED):
                reached.update(json.loads(line.removeprefix(_REACHED)))
            else:
                print(line)
    failed = sum(process.returncode != 0 for process in running)
    for what in sorted(reached):
        print(f"{reached[what]:8} {what}")
    print(
        f"{count} schedules from seed {first} on: {f'{failed} processes failed' if failed else 'nothing was violated'}"
    )
    return int(failed > 0)
