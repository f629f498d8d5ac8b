"""What was loaded and unloaded by command: kept over a restart where there is a place for it, and restored then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from predictd.server.config.model_config import ModelConfig
from predictd.server.config.settings import Settings
from predictd.server.errors import ModelUnavailableError, RequestError
from predictd.server.repository.models import Scan
from predictd.server.repository.override import read_override
from predictd.server.repository.watch import Sight, look, only
from predictd.server.supervise.state_file import Loads, StateError, StateFile
from predictd.server.supervise.takeable import check_takeable

# In load_model.
ALL_MODELS = "*"

_log = logging.getLogger(__name__)


class LoadJournal:
    """Keeps what commands loaded and unloaded.

    Args:
        state: Where; None to keep nothing.
    """

    def __init__(self, state: StateFile | None) -> None:
        self._state = state
        self._one_at_a_time = asyncio.Lock()

    async def loaded(self, configs: Mapping[str, str]) -> None:
        """Models are loaded, each with what overrides its configuration. Raises ModelUnavailableError."""
        await self._keep(lambda loads: loads.with_loaded(configs))

    async def unloaded(self, names: Iterable[str]) -> None:
        """Models are unloaded. Raises ModelUnavailableError."""
        gone = frozenset(names)
        await self._keep(lambda loads: loads.with_unloaded(gone))

    async def _keep(self, change: Callable[[Loads], Loads]) -> None:
        if self._state is None:
            return
        async with self._one_at_a_time:
            loads = change(self._state.loads)
            if loads == self._state.loads:
                return
            try:
                await asyncio.to_thread(self._state.write_loads, loads)
            except StateError as error:
                _log.error("what is loaded is not kept: %s", error)
                raise ModelUnavailableError("what is loaded cannot be kept on disk") from error


@dataclass(frozen=True, slots=True)
class Restored:
    """What a daemon that loads by command starts with.

    Attributes:
        sight: Of the models to load.
        overrides: What lies over their configurations.
        complaints: A line for each model that cannot be restored as it was.
    """

    sight: Sight
    overrides: Mapping[str, ModelConfig] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()


def restore(settings: Settings, sight: Sight, loads: Loads, tune: Callable[[Scan], Scan]) -> Restored:
    """What the settings name, without what was unloaded by command, and what was loaded by command.

    What cannot be restored is as if no command had loaded it.

    Args:
        settings: The daemon's.
        sight: Of everything that is there.
        loads: What commands loaded and unloaded.
        tune: Puts what was tuned below the models' configurations.
    """
    rejected = {model.name for model in sight.scan.rejected}
    overrides: dict[str, ModelConfig] = {}
    complaints: list[str] = []

    def complain(name: str, error: RequestError) -> None:
        complaints.append(f"model {name!r} was loaded by command, which is not restored: {error}")

    for name, text in sorted(loads.loaded.items()):
        try:
            overrides[name] = read_override(text, name)
        except RequestError as error:
            complain(name, error)
    together = look(settings.paths, None, overrides, tune) if overrides else sight
    for name, above in list(overrides.items()):
        try:
            # What is wrong with the model itself has been said, and may be mended.
            if name not in rejected:
                check_takeable(together, name, above)
        except RequestError as error:
            complain(name, error)
            del overrides[name]
    overridden = {name: above for name, above in overrides.items() if above != ModelConfig()}
    everything = {model.name for model in (*sight.scan.models, *sight.scan.rejected)}
    named = everything if ALL_MODELS in settings.load_model else set(settings.load_model)
    chosen = (named - loads.unloaded) | overrides.keys()
    # The first look stands where nothing lies over it: it is what was told of.
    seen = look(settings.paths, None, overridden, tune) if overridden else sight
    return Restored(only(seen, chosen), overridden, tuple(complaints))
