"""What a worker is told first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.lane import LaneConfig
from predictd.server.config.settings import Settings
from predictd.server.control.lanes import lane_messages
from predictd.server.control.messages import WorkerInit
from predictd.server.supervise.child import Child
from predictd.server.supervise.pool import Place, Pool

LANES_PER_MESSAGE = 50


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker is told."""

    arena_limit_bytes: int
    arena_keep_ns: int
    load_timeout_seconds: float
    cache_directory: str
    cache_limit_bytes: int
    log_level: str
    environment: Mapping[str, str]


def worker_settings(settings: Settings, arena_limit_bytes: int) -> WorkerSettings:
    """What the daemon's settings say to every worker."""
    return WorkerSettings(
        arena_limit_bytes=arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        load_timeout_seconds=settings.load_timeout_ns / 1e9,
        cache_directory=str(cache_folder(settings, os.environ) or ""),
        cache_limit_bytes=settings.cache_limit_bytes,
        log_level=settings.log_level,
        environment=dict(os.environ),
    )


def worker_init(settings: WorkerSettings, pool: Pool, place: Place, worker: int, lanes: int) -> WorkerInit:
    """The first message to a worker.

    Args:
        settings: Of all workers.
        pool: That it belongs to.
        place: That it takes.
        worker: Its id.
        lanes: How many it is about to be given.
    """
    return WorkerInit(
        worker=worker,
        pool=pool.id,
        pool_name=pool.name,
        index=place.index,
        workers=len(pool.places),
        priorities=len(pool.queues),
        arena_limit_bytes=settings.arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        lane_count=lanes,
        threads=place.plan.threads,
        cache_directory=settings.cache_directory,
        cache_limit_bytes=settings.cache_limit_bytes,
        log_level=settings.log_level,
    )


def send_lanes(worker: Child, lanes: Sequence[LaneConfig]) -> None:
    """Have a worker load some lanes."""
    for message in lane_messages(lanes, LANES_PER_MESSAGE):
        worker.send(message)
