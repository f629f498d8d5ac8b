"""Which of the models that are there a daemon starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.settings import Settings
from predictd.server.repository.bounds import Bounds
from predictd.server.repository.models import Scan
from predictd.server.repository.tuning import TunedResults, explicit_settings, this_machine
from predictd.server.repository.watch import Sight
from predictd.server.supervise.loads import ALL_MODELS, Restored, restore
from predictd.server.supervise.state_file import Loads


def at_start(settings: Settings, sight: Sight, loads: Loads, tune: Callable[[Scan], Scan]) -> Restored:
    """What is served at the start, of all that was seen.

    Args:
        settings: The daemon's.
        sight: Of everything that is there.
        loads: What commands loaded and unloaded before.
        tune: Puts what was tuned below the models' configurations.
    """
    if settings.model_control == "explicit":
        return restore(settings, sight, loads, tune)
    what = "what was loaded and unloaded by command counts only with --model-control explicit"
    return Restored(sight, complaints=() if loads == Loads() else (what,))


def bounded(settings: Settings, tune: Callable[[Scan], Scan]) -> Callable[[Scan], Scan]:
    """What to make of each scan: only what lies where it may, and then what `tune` makes of it."""
    bounds = Bounds(settings.paths, settings.linked_dir)
    return lambda found: tune(bounds.apply(found))


def unservable(settings: Settings, found: Scan) -> str:
    """Why the daemon cannot start with what was found; empty if it can."""
    places = ", ".join(map(str, settings.paths))
    if not found.models and settings.model_control != "explicit":
        return f"there is no model to serve in {places}"
    there = {ALL_MODELS, *(model.name for model in (*found.models, *found.rejected))}
    for name in settings.load_model:
        if name not in there:
            return f"there is no model {name!r} to load in {places}"
    if settings.strict and found.problems:
        return f"{found.problems[0]} (--strict)"
    return ""


def tuned_results(settings: Settings, environ: Mapping[str, str], cpus: int) -> TunedResults:
    """The results of tuning that count on this machine, of which so many CPUs can be used at once.

    Raises:
        TunedError: The file that the settings name holds none.
    """
    folder = cache_folder(settings, environ)
    return TunedResults(settings.tuned, folder, this_machine(cpus), explicit_settings(settings))
