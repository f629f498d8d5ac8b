"""What /metrics shows of the processes: their states, queues and memory at one moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from predictd.server.control.messages import GpuSample
from predictd.server.observe.gauges import (
    Gauges,
    GpuGauge,
    ProcessGauge,
    QueueGauge,
    Readiness,
    WorkerGauge,
    build_info,
    resident_bytes,
)
from predictd.server.supervise.child import Child
from predictd.server.supervise.pool import Place, Pool
from predictd.server.supervise.states import State


def snapshot(
    readiness: Readiness,
    started_unix_seconds: float,
    pools: Sequence[Pool],
    workers: Sequence[tuple[Pool, Place, Child]],
    frontends: Sequence[tuple[Place, Child]],
    frontend_places: Sequence[Place],
    in_flight: Mapping[int, int],
    kills: Mapping[tuple[str, str], int],
    gpus: Iterable[GpuSample],
) -> Gauges:
    """Look at everything.

    Args:
        readiness: What /readyz says.
        started_unix_seconds: When the supervisor started.
        pools: All that are known.
        workers: Those that run, with their pool and place.
        frontends: Those that run, with their place.
        frontend_places: Of all front ends.
        in_flight: Requests of each front end, by child id.
        kills: Children that were killed because they hung, by role and reason.
        gpus: What workers told of their GPUs; several may tell of the same.
    """
    return Gauges(
        readiness=readiness,
        build=build_info(),
        start_unix_seconds=started_unix_seconds,
        queues=tuple(
            QueueGauge(pool.name, level, queue.depth())
            for pool in pools
            if not pool.closed
            for level, queue in enumerate(pool.queues, 1)
        ),
        in_flight={place.index: in_flight.get(child.id, 0) for place, child in frontends},
        workers=tuple(
            WorkerGauge(pool.name, place.index, place.state.value) for pool in pools for place in pool.places
        ),
        worker_states=tuple(state.value for state in State),
        worker_restarts={pool.name: sum(place.restarts for place in pool.places) for pool in pools},
        kills=kills,
        given_back_bytes=_given_back_bytes(pools, frontend_places),
        processes=_processes(workers, frontends),
        gpus=tuple(
            GpuGauge(
                gpu.gpu,
                gpu.used_bytes,
                gpu.total_bytes,
                gpu.utilization_percent / 100,
                gpu.temperature_celsius,
            )
            for gpu in {gpu.gpu: gpu for gpu in gpus}.values()
        ),
    )


def _given_back_bytes(pools: Sequence[Pool], frontend_places: Sequence[Place]) -> dict[tuple[str, str], int]:
    given = {("frontend", str(place.index)): place.given_back_bytes for place in frontend_places}
    for pool in pools:
        for place in pool.places:
            given["worker", f"{pool.name}/{place.index}"] = place.given_back_bytes
    return given


def _processes(
    workers: Sequence[tuple[Pool, Place, Child]], frontends: Sequence[tuple[Place, Child]]
) -> tuple[ProcessGauge, ...]:
    known = [("supervisor", "0", os.getpid(), 0)]
    known += [("frontend", str(place.index), child.pid, place.arena_bytes) for place, child in frontends]
    known += [
        ("worker", f"{pool.name}/{place.index}", child.pid, place.arena_bytes)
        for pool, place, child in workers
    ]
    resident = resident_bytes(pid for _, _, pid, _ in known)
    return tuple(ProcessGauge(role, index, resident.get(pid), arena) for role, index, pid, arena in known)
