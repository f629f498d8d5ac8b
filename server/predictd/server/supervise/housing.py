"""Which pool a lane lives in, and how the pool's workers are planned: at the start, and for lanes that come later."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from predictd.server.config.lane import pool_queues
from predictd.server.config.settings import Settings
from predictd.server.launch.instances import Memory
from predictd.server.launch.memory import Headroom, headroom_bytes
from predictd.server.launch.plan import ChildPlan, LaunchPlan
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.repository.watch import Sight
from predictd.server.supervise.assembly import (
    Planner,
    PoolModels,
    afford,
    divide,
    lanes,
    plan_request,
    plan_start,
    pool_request,
    weights_bytes,
)
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.growth import arena_limit_bytes
from predictd.server.supervise.pool import Pool
from predictd.server.supervise.shown import shown_settings

# Of lanes whose pool cannot be made; the ids of pools begin at 1.
NO_POOL = 0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What is made at the start: the plan, the pools, and the lanes in them."""

    plan: LaunchPlan
    pools: tuple[Pool, ...]
    records: tuple[LaneRecord, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """A pool for a lane.

    Attributes:
        plans: Of its workers.
        pool: None when it cannot be made.
        runs: It is there already and takes one lane more.
        failure: Why it cannot be made; else empty.
    """

    plans: tuple[ChildPlan, ...]
    pool: Pool | None
    runs: bool = False
    failure: str = ""


class Housing:
    """Makes pools and lane records; their ids are never used again."""

    def __init__(
        self, settings: Settings, planner: Planner, headroom: Callable[[], Headroom] = headroom_bytes
    ) -> None:
        self._headroom = headroom
        self._settings = settings
        self._planner = planner
        self._pool_ids = itertools.count(1)
        self._lane_ids = itertools.count(1)

    def start(self, sight: Sight) -> Start:
        """The pools and lanes of everything that was found."""
        divided, plan = plan_start(
            sight.scan.models, self._settings, self._planner, os.environ, self._memory()
        )
        pools = tuple(self._pool(members, members.name, plan) for members in divided)
        records = tuple(
            self.record(
                Home(plan.pools[members.name], pool),
                model,
                version,
                sight.versions[model.name, version.version].fingerprint,
            )
            for members, pool in zip(divided, pools, strict=True)
            for model in members.models
            for version in model.versions
            if (model.name, version.version) in sight.versions
        )
        return Start(plan, pools, records)

    def home(
        self,
        model: FoundModel,
        known: Iterable[FoundModel],
        pools: Mapping[int, Pool],
        catalog: Catalog,
        *,
        alone: bool = False,
    ) -> Home:
        """The pool for a new lane: the one that its model shares with others, or one of its own.

        Args:
            model: Of the lane.
            known: All models that were found.
            pools: Those that run.
            catalog: What is in them.
            alone: It shares its pool with no other model.
        """
        members = PoolModels(model.name, (model,)) if alone else self._members(model, known, catalog)
        pool = next((p for p in pools.values() if p.name == members.name), None)
        if pool is not None and len(members.models) > 1 and not pool.leaving:
            return Home(tuple(place.plan for place in pool.places), pool, runs=True)
        taken = {pool.name for pool in pools.values()}
        names = itertools.chain([members.name], (f"{members.name}~{number}" for number in itertools.count(2)))
        renamed = PoolModels(next(name for name in names if name not in taken), members.models)
        beside = [pool.as_running() for pool in pools.values() if _outlives(pool, members, catalog)]
        request = plan_request((renamed,), self._settings, os.environ, beside=beside)
        afforded = afford(request, weights_bytes((renamed,)), self._memory())
        for warning in afforded.warnings[len(request.warnings) :]:
            _log.warning("%s", warning)
        plan = self._planner.plan(afforded)
        plans = plan.pools[renamed.name]
        try:
            return Home(plans, self._pool(renamed, renamed.name, plan))
        except OSError as error:
            return Home(plans, None, failure=cannot_be_made(renamed.name, error))

    def isolation(self, record: LaneRecord, old: Pool) -> Pool:
        """A pool for one lane of a shared pool, with the CPUs of those that it had."""
        name = f"{record.config.model}~{record.config.version}"
        return Pool(next(self._pool_ids), name, (old.places[0].plan,), *pool_queues([record.config]))

    def _memory(self) -> Memory:
        """What new workers may take. Arenas grow up to their limit while they are there."""
        headroom = self._headroom()
        left_bytes = headroom.bytes - arena_limit_bytes(self._settings.arena_limit_bytes, headroom)
        return Memory(left_bytes, headroom.limited_by)

    def _members(self, model: FoundModel, known: Iterable[FoundModel], catalog: Catalog) -> PoolModels:
        """The pool that a model belongs to, beside all models of now."""
        others = {record.config.model for record in catalog.records()} - {model.name}
        beside = [other for other in known if other.name in others]
        pools = divide([*beside, model], self._settings, self._planner.cores)
        return next(pool for pool in pools if model in pool.models)

    def _pool(self, members: PoolModels, name: str, plan: LaunchPlan) -> Pool:
        plans = plan.pools[name]
        configs = lanes(members, plans, self._settings, itertools.count(1))
        request = pool_request(PoolModels(name, members.models), self._settings)
        return Pool(next(self._pool_ids), name, plans, *pool_queues(configs), request=request)

    def record(
        self,
        home: Home,
        model: FoundModel,
        version: FoundVersion,
        fingerprint: str,
    ) -> LaneRecord:
        """A new lane in a pool."""
        only = PoolModels(model.name, (replace(model, versions=(version,)),))
        (config,) = lanes(only, home.plans, self._settings, self._lane_ids)
        now = asyncio.get_running_loop().time()
        pool = NO_POOL if home.pool is None else home.pool.id
        return LaneRecord(
            config,
            pool,
            len(home.plans),
            fingerprint=fingerprint,
            started=now,
            settings=shown_settings(model.file, self._settings, config, len(home.plans)),
        )


def cannot_be_made(pool: str, error: OSError) -> str:
    """What to say of a pool for which the system has too little left, such as descriptors."""
    return f"pool {pool} cannot be made: {str(error.strerror or error).lower()}"


def _outlives(pool: Pool, members: PoolModels, catalog: Catalog) -> bool:
    """Whether a pool goes on beside a new one: it serves other models."""
    names = {model.name for model in members.models}
    return any(record.config.model not in names for record in catalog.in_pool(pool.id))
