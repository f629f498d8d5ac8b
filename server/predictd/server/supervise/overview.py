"""What the status page shows of models, processes and the plan at one moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from predictd.server.control.publication import LaneView, PublishModel
from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.plan import LaunchPlan
from predictd.server.observe.status import (
    LabelInfo,
    ModelInfo,
    Overview,
    PlanInfo,
    ProcessInfo,
    ShareInfo,
    VersionInfo,
)
from predictd.server.supervise.pool import Place, Pool


def overview(
    publications: Iterable[PublishModel],
    pools: Sequence[Pool],
    frontends: Iterable[Place],
    plan: LaunchPlan,
    budget: Budget,
) -> Overview:
    """Look at everything.

    Args:
        publications: What front ends are told of each model.
        pools: All that are known.
        frontends: The places of front ends.
        plan: Of the children at the start.
        budget: What it was made from.
    """
    names = {pool.id: pool.name for pool in pools}
    return Overview(
        models=tuple(_model(publication, names) for publication in publications),
        processes=(
            *(_process("frontend", str(place.index), place) for place in frontends),
            *(
                _process("worker", f"{pool.name}/{place.index}", place)
                for pool in pools
                for place in pool.places
            ),
        ),
        plan=PlanInfo(
            cpus=format_cpulist(budget.cpus),
            usable_cpus=budget.effective_cpus,
            quota_cpus=budget.quota_cpus,
            memory_bytes=budget.memory_bytes,
            reasons=(*budget.reasons, *plan.reasons),
            warnings=plan.warnings,
        ),
        pid=os.getpid(),
    )


def _model(publication: PublishModel, pools: dict[int, str]) -> ModelInfo:
    return ModelInfo(
        name=publication.name,
        default_version=publication.default_version,
        labels=tuple(
            LabelInfo(label.name, label.version, label.next_version) for label in publication.labels
        ),
        split=tuple(ShareInfo(version, percent) for version, percent in publication.split),
        versions=tuple(_version(lane, pools) for lane in publication.versions),
    )


def _version(lane: LaneView, pools: dict[int, str]) -> VersionInfo:
    # Front ends can do without it; who publishes always says it.
    config = lane.config
    return VersionInfo(
        version=lane.version,
        state=lane.state,
        reason=lane.reason,
        # A pool that is on its way out is known no more, nor one that could not be made.
        pool=pools.get(lane.pool, ""),
        instances=lane.instances,
        engine="" if config is None else config.engine,
        max_batch_size=0 if config is None else config.max_batch_size,
    )


def _process(role: str, index: str, place: Place) -> ProcessInfo:
    plan = place.plan
    return ProcessInfo(
        role=role,
        index=index,
        state=place.state.value,
        pid=None if place.child is None else place.child.pid,
        restarts=place.restarts,
        cpus=format_cpulist(plan.cpus),
        threads=plan.threads,
        owns_cores=plan.owns_cores,
        spin=plan.spin,
        numa_nodes=format_cpulist(plan.numa_nodes) if plan.numa_nodes else "",
        reasons=plan.reasons,
    )
