"""Which of the models that are there a daemon starts with."""

from __future__ import annotations

from collections.abc import Mapping

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.settings import Settings
from predictd.server.repository.models import Scan
from predictd.server.repository.tuning import TunedResults, explicit_settings, this_machine
from predictd.server.repository.watch import Sight, only

# In load_model.
ALL_MODELS = "*"


def at_start(settings: Settings, sight: Sight) -> Sight:
    """What is served at the start of all that was seen."""
    if settings.model_control == "explicit" and ALL_MODELS not in settings.load_model:
        return only(sight, settings.load_model)
    return sight


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
