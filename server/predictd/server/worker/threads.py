"""How many threads a run is worth: one, where it is over before a second could help.

Threads of a run wait for each other awake. Of a run of a few microseconds that takes more CPU than the run itself, and
it is taken from the front ends and clients on the same CPUs (docs/performance.md has figures).
"""

from __future__ import annotations

import time

from predictd.engines.traits import Threading, engine_traits
from predictd.server.config.lane import LaneConfig
from predictd.server.worker.runner import LoadedLane
from predictd.server.worker.warmup import is_guess, made_up, warmed_sizes

# Threads of a run that is shorter are not worth their waiting.
SHORT_RUN_NS = 100_000
# A model that takes longer to load is not loaded twice to find out.
QUICK_LOAD_SECONDS = 1.0
# How much longer a run may take with one thread.
SLOWER_MAX = 1.25
# Enough for dozens of short runs, and for one that is not.
_TRIAL_NS = 3_000_000


def may_do_with_fewer(config: LaneConfig, device: str, load_seconds: float) -> bool:
    """Whether it can be found out at little cost how many threads the runs of a lane are worth.

    Args:
        config: The lane.
        device: Where it runs.
        load_seconds: What its load took.
    """
    return (
        config.threads > 1
        and not config.threads_asked
        and device == "cpu"
        and engine_traits(config.engine).threading is Threading.OPTIONS
        and (config.warmup is None or config.warmup.mode != "none")
        and load_seconds <= QUICK_LOAD_SECONDS
    )


def fastest_run_ns(lane: LoadedLane) -> int:
    """How long a run of the largest batch that is warm takes at least, or one of a row if that is no short run.

    0 where the inputs can only be guessed, so that nothing is known.
    """
    if is_guess(lane.signature):
        return 0
    one_ns = _fastest_ns(lane, 1)
    return _fastest_ns(lane, warmed_sizes(lane.signature, lane.config)[0]) if is_short(one_ns) else one_ns


def is_short(run_ns: int) -> bool:
    """Whether threads are not worth their waiting in a run that takes so long; not where nothing is known."""
    return 0 < run_ns < SHORT_RUN_NS


def one_is_enough(one_ns: int, several_ns: int) -> bool:
    """Whether a run with one thread takes hardly longer than it does with several."""
    return one_ns <= SLOWER_MAX * several_ns


def _fastest_ns(lane: LoadedLane, rows: int) -> int:
    inputs = [made_up(spec, rows) for spec in lane.signature.inputs]
    fastest_ns = spent_ns = 0
    while spent_ns < _TRIAL_NS:
        began_ns = time.monotonic_ns()
        lane.engine.run(inputs)
        run_ns = time.monotonic_ns() - began_ns
        fastest_ns = min(fastest_ns or run_ns, run_ns)
        spent_ns += run_ns
    return fastest_ns
