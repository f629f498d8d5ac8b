"""From settings and model folders to lanes and pools: the pure part of starting up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predictd.server.config.lane import DEFAULT_PRIORITY_LEVELS, LaneConfig, QueueRules
from predictd.server.config.model_config import ModelConfig, QueuePolicy
from predictd.server.config.settings import Settings
from predictd.server.launch.budget import Budget
from predictd.server.launch.plan import ChildPlan, LaunchPlan, PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import Topology
from predictd.server.repository.models import FoundModel, FoundVersion, served_versions
from predictd.server.repository.placement import Placeable, place, pool_instances

DEFAULT_ENGINE = "onnxruntime"
DEFAULT_DEVICE = "cpu"
_DECLARED = ("inputs", "outputs", "warmup")


@dataclass(frozen=True, slots=True)
class PoolModels:
    """A pool before it is planned: its name and the models it hosts."""

    name: str
    models: tuple[FoundModel, ...]


def divide(models: Sequence[FoundModel], settings: Settings, cores: int) -> tuple[PoolModels, ...]:
    """Which models share workers."""
    by_name = {model.name: model for model in models}
    placeable = [Placeable(model.name, model.file.pool, model.file.instances) for model in models]
    placed = place(placeable, settings.pools, cores)
    return tuple(PoolModels(name, tuple(by_name[m] for m in members)) for name, members in placed.items())


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans for this machine.

    Attributes:
        topology: Of the machine.
        budget: What this process may use of it.
    """

    topology: Topology
    budget: Budget

    @property
    def cores(self) -> int:
        """CPUs that can be used at once."""
        return self.budget.effective_cpus

    def plan(self, request: PlanRequest) -> LaunchPlan:
        """Plan every child of a request."""
        return plan(self.topology, self.budget, request)


def plan_request(
    pools: Sequence[PoolModels], settings: Settings, environment: Mapping[str, str], beside: int = 0
) -> PlanRequest:
    """What the launcher is asked to plan.

    Args:
        pools: Those to plan.
        settings: The daemon's.
        environment: The user's.
        beside: Pools that run already and go on; they share the CPUs.
    """
    others = tuple(PoolRequest(f"beside~{number}") for number in range(beside))
    return PlanRequest(
        (*(_pool_request(pool, settings) for pool in pools), *others), settings.frontends, environment
    )


def _pool_request(pool: PoolModels, settings: Settings) -> PoolRequest:
    threads = [model.file.threads for model in pool.models if model.file.threads is not None]
    asked = settings.instances is not None or any(model.file.instances is not None for model in pool.models)
    placeable = [Placeable(model.name, model.file.pool, model.file.instances) for model in pool.models]
    return PoolRequest(
        name=pool.name,
        instances=pool_instances(placeable, settings.instances or 1) if asked else None,
        threads=max(threads) if threads else settings.threads,
        shared=len(pool.models) > 1,
    )


def lanes(
    pool: PoolModels, plans: Sequence[ChildPlan], settings: Settings, ids: Iterator[int]
) -> list[LaneConfig]:
    """The lanes of a pool whose workers are planned so."""
    found = [(model, version) for model in pool.models for version in served_versions(model)]
    return [_lane(next(ids), model, version, plans[0], settings) for model, version in found]


def _lane(
    lane: int, model: FoundModel, version: FoundVersion, plan: ChildPlan, settings: Settings
) -> LaneConfig:
    file = model.file
    queues = queue_rules(file, settings)
    return LaneConfig(
        lane=lane,
        model=model.name,
        version=version.version,
        path=str(version.path),
        engine=file.engine or DEFAULT_ENGINE,
        max_batch_size=_max_batch_size(file, settings),
        max_delay_ns=settings.max_delay_ns if file.max_delay_ns is None else file.max_delay_ns,
        max_queue_size=max(rules.max_queue_size for rules in queues),
        max_request_rows=settings.max_request_rows,
        threads=min(file.threads, plan.threads) if file.threads else plan.threads,
        spin=plan.spin if file.spin is None else file.spin,
        device=file.device or DEFAULT_DEVICE,
        parameters=dict(file.parameters),
        inputs=file.inputs,
        outputs=file.outputs,
        served_outputs=file.served_outputs,
        warmup=file.warmup,
        origins={name: str(file.origins[name]) for name in _DECLARED if name in file.origins},
        preferred_batch_sizes=file.preferred_batch_sizes,
        priority_levels=file.priority_levels or 0,
        default_priority=file.default_priority or (len(queues) + 1) // 2,
        queues=queues,
    )


def _max_batch_size(file: ModelConfig, settings: Settings) -> int:
    """The limit of a batch. A model that prefers a size and says nothing of a limit asks for that size at least."""
    if file.max_batch_size is not None:
        return file.max_batch_size
    return max((settings.max_batch_size, *file.preferred_batch_sizes))


def queue_rules(file: ModelConfig, settings: Settings) -> tuple[QueueRules, ...]:
    """The rules of each of a model's priorities: what is said of it, else of the model, else of all models."""
    general = QueuePolicy(
        max_queue_size=file.max_queue_size,
        default_timeout_ns=file.default_timeout_ns,
        allow_timeout_override=file.allow_timeout_override,
        timeout_action=file.timeout_action,
    )
    levels = file.priority_levels or DEFAULT_PRIORITY_LEVELS
    return tuple(
        _rules(file.priority_queues.get(level, QueuePolicy()), general, settings)
        for level in range(1, levels + 1)
    )


def _rules(own: QueuePolicy, general: QueuePolicy, settings: Settings) -> QueueRules:
    def said(name: str) -> Any:
        value = getattr(own, name)
        return getattr(general, name) if value is None else value

    return QueueRules(
        # Not even 0, which is no limit to Triton, is without one: a queue is a pipe.
        max_queue_size=said("max_queue_size") or settings.max_queue_size,
        timeout_ns=said("default_timeout_ns") or 0,
        timeout_override=said("allow_timeout_override") or False,
        delay=said("timeout_action") == "delay",
    )
