"""Lanes that come and go: started, retired, ended, and moved into pools of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from predictd.server.config.settings import Settings
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.repository.watch import Sight
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.counts import Counts
from predictd.server.supervise.directing import Director
from predictd.server.supervise.housing import Housing, cannot_be_made
from predictd.server.supervise.stand_in import fingerprint_of, stand_in
from predictd.server.supervise.wiring import Wiring
from predictd.server.supervise.workers import Workers

_log = logging.getLogger(__name__)


class Lanes:
    """Does what the keeper decides (its `LaneActions`), and what the death of workers calls for.

    Args:
        catalog: Knows all lanes.
        housing: Makes pools for them.
        workers: Have them.
        wiring: Knows when one is finished with.
        counts: Are collected before one ends.
        director: Has their labels.
        settings: Say which versions are served by another engine while their own builds.
        known: All models that were found.
        settled: Whether the daemon has come up, so that somebody may be disturbed by a load.
        publish: Tells the front ends about a model whose lanes changed.
        on_ended: Called when lanes are gone, and with them what they held.
    """

    def __init__(
        self,
        catalog: Catalog,
        housing: Housing,
        workers: Workers,
        wiring: Wiring,
        counts: Counts,
        director: Director,
        settings: Settings,
        *,
        known: Callable[[], Sequence[FoundModel]],
        settled: Callable[[], bool],
        publish: Callable[[str], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._housing = housing
        self._workers = workers
        self._wiring = wiring
        self._counts = counts
        self._director = director
        self._settings = settings
        self._known = known
        self._settled = settled
        self._publish = publish
        self._on_ended = on_ended
        for record in catalog.records():
            self._named(record)

    def _named(self, record: LaneRecord) -> None:
        self._counts.aggregate.name_lane(record.config.lane, record.config.model, record.config.version)

    def start_lane(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        """Load a version, and one that stands in for it if it shall have one."""
        self.start_stand_in(model, version, fingerprint)
        self._start_lane(model, version, fingerprint)

    def start_stand_in(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        """Load what stands in for a version, if it shall have a stand-in."""
        substitute = stand_in(model, version, self._settings)
        if substitute is not None:
            self._start_lane(substitute, version, fingerprint_of(fingerprint), stands_in=True)

    def _start_lane(
        self, model: FoundModel, version: FoundVersion, fingerprint: str, *, stands_in: bool = False
    ) -> None:
        """Load a version: into the pool that its model shares with others, else into one of its own."""
        home = self._housing.home(model, self._known(), self._workers.pools, self._catalog, alone=stands_in)
        record = self._housing.record(home, model, version, fingerprint)
        record.stand_in = stands_in
        self._catalog.add(record)
        self._named(record)
        _log.info("loading %s from %s", record.name, record.config.path)
        if home.pool is None:
            self._workers.fail_lane(record, home.failure)
        elif home.runs:
            self._workers.load(home.pool, record)
        else:
            # At the start nobody serves yet who could be disturbed.
            self._workers.add_pool(home.pool, in_turn=self._settled())
        self._publish(model.name)

    def retire_lane(self, lane: int) -> None:
        """Take a ready lane out of the routes, and end it once it is finished with."""
        record = self._catalog.record(lane)
        record.state = "UNLOADING"
        _log.info("retiring %s", record.name)
        self._publish(record.config.model)
        self._wiring.retire(lane)

    async def end_lane(self, lane: int) -> None:
        """No request of the lane is left: have its workers' last counts, and end it."""
        await self._counts.collect()
        if self._catalog.find(lane) is not None:
            self.drop_lane(lane)

    def drop_lane(self, lane: int) -> None:
        """End a lane: one that is finished with, loads, or has failed.

        It is known until the workers of its pool are gone: so long they have its memory.
        """
        record = self._catalog.record(lane)
        pool = self._workers.pools.get(record.pool)
        if pool is not None:
            self._workers.drop(pool, record)
        self._catalog.remove(lane)
        if self._lingers(record):
            record.state = "UNLOADING"
            self._catalog.add(record)
        self._counts.aggregate.forget_lane(lane)
        self._publish(record.config.model)

    def _lingers(self, record: LaneRecord) -> bool:
        """Whether a lane was the last of its pool, whose workers are on their way out."""
        left = {pool.id for pool, _, _ in self._workers.children()} - self._workers.pools.keys()
        return record.pool in left

    def forget_ended(self) -> None:
        """Drop the lanes whose workers are gone, and then start what waited for that."""
        ended = [
            record
            for record in self._catalog.records()
            if record.state == "UNLOADING"
            and record.pool not in self._workers.pools
            and not self._lingers(record)
        ]
        for record in ended:
            self._catalog.remove(record.config.lane)
        self._on_ended()
        # Only now: a model of which nothing is left for a moment must not be forgotten by those who route.
        for record in ended:
            self._publish(record.config.model)

    def take_labels(self, sight: Sight) -> None:
        """Take in what the models' configurations say of labels. What cannot be read now says what it said before."""
        found = {model.name: model.file.labels for model in sight.scan.models}
        known = self._catalog.configured_labels
        kept = {model.name: known.get(model.name, {}) for model in sight.scan.rejected}
        for model in sorted(self._catalog.configure_labels({**kept, **found})):
            self._publish(model)
        versions: dict[str, set[int]] = {}
        for name, version in sight.versions:
            versions.setdefault(name, set()).add(version)
        self._director.complain(versions)

    def isolate(self, record: LaneRecord) -> None:
        """Give a lane of a shared pool a worker of its own, with the CPUs of those that it had."""
        try:
            pool = self._housing.isolation(record, self._workers.pools[record.pool])
        except OSError as error:
            self._workers.fail_lane(record, cannot_be_made(record.name, error))
            return
        record.pool = pool.id
        record.instances = 1
        record.signature = None
        self._workers.add_pool(pool)
