"""Having engines give back the memory of large runs that are not made any more: of what is known, and at which run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from predictd.engines.api import DeviceLostError, EngineError, GivesBack
from predictd.server.worker.runner import LoadedLane
from predictd.server.worker.warmup import is_guess, made_up

_log = logging.getLogger(__name__)


def ask_engines(lanes: Mapping[int, LoadedLane], now_ns: int) -> list[int]:
    """Ask every engine that holds much more than it needs to give it back at the end of its next run.

    Returns:
        Lanes of which no next run is to be expected, so that one is to be made up.
    """
    idle = []
    for number, lane in lanes.items():
        engine, memory = lane.engine, lane.memory
        if memory is not None and isinstance(engine, GivesBack) and memory.shall_give_back(now_ns):
            engine.give_back()
            if memory.idle and not is_guess(lane.signature):
                idle.append(number)
    return idle


def run_made_up(lane: LoadedLane) -> None:
    """Run one row of made-up inputs, at the end of which the engine gives its memory back."""
    try:
        lane.engine.run([made_up(spec, 1) for spec in lane.signature.inputs])
    except DeviceLostError:
        raise
    except EngineError as error:
        _log.info("model %s keeps the memory of its engine: %s", lane.config.model, error)
