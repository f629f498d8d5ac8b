"""Keeping what is served equal to what is on disk: look, decide, act, and again after each event."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from predictd.server.config.model_config import ModelConfig
from predictd.server.repository.models import FoundModel, FoundVersion, Scan
from predictd.server.repository.reconcile import (
    Cancel,
    Content,
    Forget,
    LaneState,
    Observed,
    Retire,
    Start,
    Wanted,
    reconcile,
)
from predictd.server.repository.watch import Decision, Sight, Sighting, decide, look, only, untuned, updated
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.stand_in import still_needed
from predictd.server.supervise.takeable import check_takeable

POLL_SECONDS = 1.0
# New content is looked at again soon: a model that was moved into place is loaded without waiting for the next poll.
LOOK_AGAIN_SECONDS = 0.3
_NO_OVERRIDES: Mapping[str, ModelConfig] = {}

_log = logging.getLogger(__name__)


class LaneActions(Protocol):
    """What the supervisor does for the keeper."""

    def start_lane(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        """Load a version."""

    def retire_lane(self, lane: int) -> None:
        """Take a ready lane out of the routes, and end it once it is finished with."""

    def drop_lane(self, lane: int) -> None:
        """End a lane that loads or has failed."""

    def take_labels(self, sight: Sight) -> None:
        """Take in what the models' configurations say of labels."""


class Keeper:
    """Owns what is wanted.

    Args:
        paths: Where the models are.
        first: What was found at the start; its lanes exist.
        catalog: What is.
        actions: Carries decisions out.
        polls: Look every second; else only when asked to.
        chosen: Names of the models that are wanted; None for all that are there.
        overrides: What lies over the configurations of models, by name; `first` was seen with it.
        tune: Puts what was tuned below the models' configurations.

    Attributes:
        looking: A look was asked for by signal, and what it finds that is still being written is not taken yet.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        first: Sight,
        catalog: Catalog,
        actions: LaneActions,
        *,
        polls: bool,
        chosen: Collection[str] | None = None,
        overrides: Mapping[str, ModelConfig] = _NO_OVERRIDES,
        tune: Callable[[Scan], Scan] = untuned,
    ) -> None:
        self._paths = paths
        self._sight = first
        self._catalog = catalog
        self._actions = actions
        self._polls = polls
        self._chosen = None if chosen is None else set(chosen)
        self._overrides = dict(overrides)
        self._tune = tune
        # One look at a time: an older one must not undo what a newer one found.
        self._looking = asyncio.Lock()
        self._wanted: dict[str, Wanted] = dict(decide(None, first, {}).wanted)
        self._asked = asyncio.Event()
        self.looking = False
        self._complained: set[str] = {str(problem) for problem in first.scan.problems}
        self._reconciling = False

    @property
    def models(self) -> tuple[FoundModel, ...]:
        """Those that were found at the last look."""
        return self._sight.scan.models

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """The versions that were to be served at the last look."""
        return tuple(self._sight.versions.values())

    def look_now(self) -> None:
        """Look at once (SIGHUP)."""
        _log.info("SIGHUP: looking for new, changed and removed models")
        self.looking = True
        self._asked.set()

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        wait_seconds = POLL_SECONDS if self._polls else None
        while True:
            await _is_set(self._asked, wait_seconds)
            self._asked.clear()
            held = await self.look_at_all()
            self.looking = held or self._asked.is_set()
            wait_seconds = LOOK_AGAIN_SECONDS if held else POLL_SECONDS if self._polls else None

    async def look_until_settled(self) -> list[str]:
        """Look at once, and again soon as long as something new is there that has to settle.

        Returns:
            What is new, at rest and no whole model: a line each.
        """
        while True:
            held = await self.look_at_all()
            if not held:
                return sorted(_broken(self._sight, self._serving()))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def look_at_all(self) -> bool:
        """Look, and do what is due. True when something new is there that has to settle."""
        async with self._looking:
            sight = await asyncio.to_thread(look, self._paths, None, self._overrides, self._tune)
            self._complain(sight, self._serving())
            if self._chosen is not None:
                sight = only(sight, self._chosen)
            decision = self._decide(self._sight, sight)
            self._sight = sight
            self._wanted = dict(decision.wanted)
            self._actions.take_labels(sight)
        self.reconcile()
        return decision.held

    def _decide(self, before: Sight | None, sight: Sight, again: Collection[str] = ()) -> Decision:
        """What shall be served. Of the models in `again` what has failed counts for nothing."""
        started = {
            (record.config.model, record.config.version, record.fingerprint)
            for record in self._catalog.records()
            if record.state != "UNLOADING"
        }
        return decide(before, sight, self._serving(again), started)

    # Commands -----------------------------------------------------------------------------------------------

    @property
    def explicit(self) -> bool:
        """Models come and go by command only."""
        return self._chosen is not None

    @property
    def names(self) -> set[str]:
        """The models that are wanted now."""
        return set(self._wanted)

    async def take(
        self, overrides: Mapping[str, ModelConfig], base_paths: Mapping[str, str] | None = None
    ) -> None:
        """Take models as they are on disk now, and try again what failed of them. The others are left alone.

        Args:
            overrides: For each of the models, what lies over its configuration.
            base_paths: The folders that they are said to have, where that is said.

        Raises:
            UnknownModelError: One is not there.
            FailedPreconditionError: One cannot be served as it is.
            InvalidRequestError: One is in another folder, or what is said of one contradicts its configuration.
        """
        async with self._looking:
            together = {**self._overrides, **overrides}
            sight = await asyncio.to_thread(look, self._paths, None, together, self._tune)
            for name in overrides:
                check_takeable(sight, name, together[name], (base_paths or {}).get(name, ""))
            self._overrides = {name: above for name, above in together.items() if above != ModelConfig()}
            if self._chosen is not None:
                self._chosen.update(overrides)
            self._sight = updated(self._sight, sight, overrides)
            self._wanted.update(self._decide(None, only(sight, overrides), again=overrides.keys()).wanted)
            for record in self._catalog.records():
                if record.config.model in overrides and record.state == "FAILED":
                    self._actions.drop_lane(record.config.lane)
            self._actions.take_labels(self._sight)
        self.reconcile()

    async def leave(self, names: Collection[str]) -> set[int]:
        """Want some models no more. Gives their lanes, which end once they are finished with."""
        async with self._looking:
            self._sight = only(self._sight, self.names.difference(names))
            for name in names:
                self._wanted.pop(name, None)
                self._overrides.pop(name, None)
                if self._chosen is not None:
                    self._chosen.discard(name)
        self.reconcile()
        return {record.config.lane for record in self._catalog.records() if record.config.model in names}

    async def is_there(self, name: str) -> bool:
        """Whether a model of this name is on disk, whatever state it is in."""
        sight = await asyncio.to_thread(look, self._paths)
        return any(model.name == name for model in (*sight.scan.models, *sight.scan.rejected))

    def wanted_lanes(self, name: str) -> list[LaneRecord | None]:
        """The lane of each wanted version of a model; None where there is none yet."""
        lanes = {
            (record.config.version, record.fingerprint): record
            for record in self._catalog.records()
            if record.config.model == name and record.state != "UNLOADING"
        }
        contents = self._wanted[name].contents if name in self._wanted else ()
        return [lanes.get((content.version, content.fingerprint)) for content in contents]

    def reconcile(self) -> None:
        """Something changed: do what is due now."""
        if self._reconciling:
            return
        self._reconciling = True
        try:
            while actions := reconcile(self._wanted, self._observed()):
                for action in actions:
                    self._carry_out(action)
        finally:
            self._reconciling = False

    def _carry_out(self, action: Start | Retire | Cancel | Forget) -> None:
        match action:
            case Start(model=model, content=content):
                sighting = self._sight.versions[model, content.version]
                self._actions.start_lane(sighting.model, sighting.version, content.fingerprint)
            case Retire(lane=lane):
                self._actions.retire_lane(lane)
            case Cancel(lane=lane) | Forget(lane=lane):
                self._actions.drop_lane(lane)

    def _observed(self) -> list[Observed]:
        records = self._catalog.records()
        return [
            Observed(
                record.config.lane,
                record.config.model,
                Content(record.config.version, record.fingerprint),
                LaneState(record.state),
            )
            for record in records
            # A stand-in is nothing that is wanted, and must not be given up for that before it is ready.
            if not (record.stand_in and record.state == "LOADING" and still_needed(record, records))
        ]

    def _serving(self, again: Collection[str] = ()) -> dict[tuple[str, int], str]:
        """The content of each version that has a lane; of the one that is ready if there are two."""
        records = sorted(self._catalog.records(), key=lambda r: (r.state == "READY", r.config.lane))
        return {
            (record.config.model, record.config.version): record.fingerprint
            for record in records
            if record.state != "UNLOADING" and not (record.state == "FAILED" and record.config.model in again)
        }

    def _complain(self, sight: Sight, serving: Mapping[tuple[str, int], str]) -> None:
        """Say each problem once, when it comes up. What was tried and has failed has been complained of already."""
        problems = {str(problem) for problem in sight.scan.problems}
        problems |= _broken(sight, serving)
        for problem in sorted(problems - self._complained):
            _log.warning("%s", problem)
        self._complained = problems


def _broken(sight: Sight, serving: Mapping[tuple[str, int], str]) -> set[str]:
    """A line for each version that is new, at rest and no whole model."""
    return {
        f"version {sighting.version.version} of {sighting.model.name} is not loaded: {sighting.broken}"
        for key, sighting in sight.versions.items()
        if sighting.quiet and sighting.broken and serving.get(key) != sighting.fingerprint
    }


async def _is_set(event: asyncio.Event, timeout_seconds: float | None) -> None:
    """Wait until an event is set, or so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
