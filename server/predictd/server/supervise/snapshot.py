"""What /metrics shows of the processes: their states, queues, plans, memory and CPU time at one moment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from predictd.server.control.messages import GpuSample
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.observe.gauges import (
    Gauges,
    GpuGauge,
    MemoryGauge,
    PlanGauge,
    ProcessGauge,
    QueueGauge,
    Readiness,
    WorkerGauge,
    build_info,
)
from predictd.server.observe.processes import cpu_seconds, memory
from predictd.server.supervise.child import Child
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.growth import GrowthPolicy
from predictd.server.supervise.pool import Place, Pool
from predictd.server.supervise.states import State

_log = logging.getLogger(__name__)


def snapshot(
    readiness: Readiness,
    started_unix_seconds: float,
    pools: Sequence[Pool],
    workers: Sequence[tuple[Pool, Place, Child]],
    frontends: Sequence[Place],
    in_flight: Mapping[int, int],
    kills: Mapping[tuple[str, str], int],
    growth: GrowthPolicy,
    gpus: Iterable[GpuSample],
    credentials: Credentials,
) -> Gauges:
    """Look at everything.

    Args:
        readiness: What /readyz says.
        started_unix_seconds: When the supervisor started.
        pools: All that are known.
        workers: Those that run, with their pool and place; also those of pools that are gone.
        frontends: The places of front ends.
        in_flight: Requests of each front end, by child id.
        kills: Children that were killed because they hung, by role and reason.
        growth: Knows what memory is left.
        gpus: What workers told of their GPUs; several may tell of the same.
        credentials: Certificate and tokens.
    """
    places = _places(pools, workers, frontends)
    return Gauges(
        readiness=readiness,
        build=build_info(),
        start_unix_seconds=started_unix_seconds,
        queues=_queues(pools),
        in_flight={
            place.index: in_flight.get(place.child.id, 0) for place in frontends if place.child is not None
        },
        workers=tuple(
            WorkerGauge(pool.name, place.index, place.state.value) for pool in pools for place in pool.places
        ),
        worker_states=tuple(state.value for state in State),
        worker_restarts={pool.name: sum(place.restarts for place in pool.places) for pool in pools},
        frontend_restarts={place.index: place.restarts for place in frontends},
        kills=kills,
        given_back_bytes={key: place.given_back_bytes for key, place in places.items()},
        processes=_processes(places),
        plans=tuple(
            PlanGauge(role, index, format_cpulist(place.plan.cpus), len(place.plan.cpus), place.plan.threads)
            for (role, index), place in places.items()
        ),
        memory=_memory(growth),
        gpus=_gpus(gpus),
        certificate_expiry_unix_seconds=credentials.expiry_unix_seconds,
        credential_failures=credentials.failures,
    )


def _places(
    pools: Sequence[Pool], workers: Sequence[tuple[Pool, Place, Child]], frontends: Sequence[Place]
) -> dict[tuple[str, str], Place]:
    """All places by role and index. Where one pool follows another of its name, the newer one counts."""
    places = {("frontend", str(place.index)): place for place in frontends}
    leaving = [(pool, place) for pool, place, _ in workers]
    staying = [(pool, place) for pool in pools for place in pool.places]
    places.update((("worker", f"{pool.name}/{place.index}"), place) for pool, place in leaving + staying)
    return places


def _queues(pools: Iterable[Pool]) -> tuple[QueueGauge, ...]:
    return tuple(
        QueueGauge(pool.name, level, queue.depth(), pool.queue_limit)
        for pool in pools
        if not pool.closed
        for level, queue in enumerate(pool.queues, 1)
    )


def _processes(places: Mapping[tuple[str, str], Place]) -> tuple[ProcessGauge, ...]:
    pids = {key: place.child.pid for key, place in places.items() if place.child is not None}
    own = os.getpid()
    found = memory([own, *pids.values()])
    children = tuple(
        ProcessGauge(
            role=role,
            index=index,
            memory=found.get(pids.get((role, index), 0)),
            cpu_seconds=place.cpu_seconds,
            arena_bytes=place.arena_bytes,
        )
        for (role, index), place in places.items()
    )
    return (ProcessGauge("supervisor", "0", found[own], cpu_seconds(own)), *children)


def _memory(growth: GrowthPolicy) -> MemoryGauge | None:
    try:
        headroom = growth.headroom()
    except (OSError, ValueError) as error:
        # A scrape shows the rest; growth, which depends on it, fails by itself.
        _log.warning("the memory limits cannot be read: %s", error)
        return None
    return MemoryGauge(headroom.limit_bytes, headroom.bytes, growth.limit_bytes)


def _gpus(samples: Iterable[GpuSample]) -> tuple[GpuGauge, ...]:
    return tuple(
        GpuGauge(
            gpu.gpu, gpu.used_bytes, gpu.total_bytes, gpu.utilization_percent / 100, gpu.temperature_celsius
        )
        for gpu in {sample.gpu: sample for sample in samples}.values()
    )
