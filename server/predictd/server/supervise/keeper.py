"""Keeping what is served equal to what is on disk: look, decide, act, and again after each event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from predictd.server.repository.models import FoundModel, FoundVersion
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
from predictd.server.repository.watch import Sight, Sighting, decide, look
from predictd.server.supervise.catalog import Catalog

POLL_SECONDS = 1.0
# New content is looked at again soon: a model that was moved into place is loaded without waiting for the next poll.
LOOK_AGAIN_SECONDS = 0.3

_log = logging.getLogger(__name__)


class LaneActions(Protocol):
    """What the supervisor does for the keeper."""

    def start_lane(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        """Load a version."""

    def retire_lane(self, lane: int) -> None:
        """Take a ready lane out of the routes, and end it once it is finished with."""

    def drop_lane(self, lane: int) -> None:
        """End a lane that loads or has failed."""


class Keeper:
    """Owns what is wanted.

    Args:
        paths: Where the models are.
        first: What was found at the start; its lanes exist.
        catalog: What is.
        actions: Carries decisions out.
        polls: Look every second; else only when asked to.
    """

    def __init__(
        self, paths: Sequence[Path], first: Sight, catalog: Catalog, actions: LaneActions, *, polls: bool
    ) -> None:
        self._paths = paths
        self._sight = first
        self._catalog = catalog
        self._actions = actions
        self._polls = polls
        self._wanted: dict[str, Wanted] = dict(decide(None, first, {}).wanted)
        self._asked = asyncio.Event()
        self._complained: set[str] = {str(problem) for problem in first.scan.problems}
        self._reconciling = False

    @property
    def models(self) -> tuple[FoundModel, ...]:
        """Those that were found at the last look."""
        return self._sight.scan.models

    def look_now(self) -> None:
        """Look at once (SIGHUP)."""
        _log.info("SIGHUP: looking for new, changed and removed models")
        self._asked.set()

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        wait_seconds = POLL_SECONDS if self._polls else None
        while True:
            asked = await _is_set(self._asked, wait_seconds)
            self._asked.clear()
            sight = await asyncio.to_thread(look, self._paths)
            serving = self._serving()
            decision = decide(None if asked else self._sight, sight, serving)
            self._complain(sight, serving)
            self._sight = sight
            self._wanted = dict(decision.wanted)
            self.reconcile()
            wait_seconds = LOOK_AGAIN_SECONDS if decision.held else POLL_SECONDS if self._polls else None

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
        return [
            Observed(
                record.config.lane,
                record.config.model,
                Content(record.config.version, record.fingerprint),
                LaneState(record.state),
            )
            for record in self._catalog.records()
        ]

    def _serving(self) -> dict[tuple[str, int], str]:
        """The content of each version that has a lane; of the one that is ready if there are two."""
        records = sorted(self._catalog.records(), key=lambda r: (r.state == "READY", r.config.lane))
        return {
            (record.config.model, record.config.version): record.fingerprint
            for record in records
            if record.state != "UNLOADING"
        }

    def _complain(self, sight: Sight, serving: Mapping[tuple[str, int], str]) -> None:
        """Say each problem once, when it comes up. What was tried and has failed has been complained of already."""
        problems = {str(problem) for problem in sight.scan.problems}
        problems |= {
            _held(sighting)
            for key, sighting in sight.versions.items()
            if sighting.quiet and sighting.broken and serving.get(key) != sighting.fingerprint
        }
        for problem in sorted(problems - self._complained):
            _log.warning("%s", problem)
        self._complained = problems


def _held(sighting: Sighting) -> str:
    return f"version {sighting.version.version} of {sighting.model.name} is not loaded: {sighting.broken}"


async def _is_set(event: asyncio.Event, timeout_seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
