"""From settings and model folders to lanes and pools: the pure part of starting up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from predictd.engines.traits import engine_for_suffix, engine_traits
from predictd.server.config.lane import DEFAULT_PRIORITY_LEVELS, LaneConfig, QueueRules
from predictd.server.config.model_config import ModelConfig, QueuePolicy
from predictd.server.config.settings import Settings
from predictd.server.launch.budget import Budget, read_affinity, read_budget
from predictd.server.launch.facilities import Facilities, read_facilities
from predictd.server.launch.instances import Memory, PoolMemory, fit
from predictd.server.launch.plan import ChildPlan, LaunchPlan, PlanRequest, PoolRequest, RunningPool, plan
from predictd.server.launch.sandbox.confinement import SandboxRequest
from predictd.server.launch.topology import Topology, read_topology
from predictd.server.repository.models import FoundModel, FoundVersion, served_versions
from predictd.server.repository.placement import Placeable, place, pool_instances
from predictd.server.repository.watch import content_bytes
from predictd.server.supervise.carrier import carrier, native_problem

DEFAULT_ENGINE = "onnxruntime"
# A worker process has one of each, whichever lanes it hosts.
_OF_A_PROCESS = ("allocator", "openmp")
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
        facilities: What its system has.
        sandbox: What workers shall be kept from.
        elsewhere: It is another machine, of which nobody knows what is installed.
    """

    topology: Topology
    budget: Budget
    facilities: Facilities = field(default_factory=Facilities)
    sandbox: SandboxRequest = field(default_factory=SandboxRequest)
    elsewhere: bool = False

    @property
    def cores(self) -> int:
        """CPUs that can be used at once."""
        return self.budget.effective_cpus

    def plan(self, request: PlanRequest) -> LaunchPlan:
        """Plan every child of a request."""
        known = replace(
            request,
            facilities=self.facilities,
            sandbox=self.sandbox,
            carrier="" if self.elsewhere else request.carrier,
        )
        return plan(self.topology, self.budget, known)


def read_planner(root: Path = Path("/")) -> Planner:
    """Look at the machine.

    Args:
        root: Where its `proc` and `sys` lie.

    Raises:
        ValueError: Nothing below the root says which CPUs there are.
    """
    affinity = read_affinity(root)
    topology = read_topology(affinity, root)
    budget = read_budget(affinity, topology.ids, root)
    return Planner(topology, budget, read_facilities(root), elsewhere=root != Path("/"))


def plan_start(
    models: Sequence[FoundModel],
    settings: Settings,
    planner: Planner,
    environment: Mapping[str, str],
    memory: Memory | None = None,
) -> tuple[tuple[PoolModels, ...], LaunchPlan]:
    """What `serve` starts with: which models share workers, and the plan of all children.

    Args:
        models: That were found.
        settings: The daemon's.
        planner: For the machine.
        environment: The user's.
        memory: What workers may take; None for as much as they like.
    """
    pools = divide(models, settings, planner.cores)
    request = plan_request(pools, settings, environment)
    if memory is not None:
        request = afford(request, weights_bytes(pools), memory)
    return pools, planner.plan(request)


def plan_request(
    pools: Sequence[PoolModels],
    settings: Settings,
    environment: Mapping[str, str],
    beside: Sequence[RunningPool] = (),
) -> PlanRequest:
    """What the launcher is asked to plan.

    Args:
        pools: Those to plan.
        settings: The daemon's.
        environment: The user's.
        beside: Pools that run already and go on.
    """
    return PlanRequest(
        tuple(pool_request(pool, settings) for pool in pools),
        settings.frontends,
        environment,
        warnings=tuple(
            warning for pool in pools for key in _OF_A_PROCESS for warning in _disagreement(pool, key)
        ),
        beside=tuple(beside),
        origins=_origin(settings, "frontends"),
        carrier=carrier(settings.frontend, native_problem()).reason,
    )


def afford(request: PlanRequest, weights_bytes: Mapping[str, int], memory: Memory) -> PlanRequest:
    """The same request for no more workers than there is memory for, with a warning for those that are missing.

    Args:
        request: What was asked for.
        weights_bytes: Of each pool that is to start, the files that each of its workers loads.
        memory: What there is.
    """
    fitted = fit(
        [PoolMemory(pool.name, pool.instances or 1, weights_bytes[pool.name]) for pool in request.pools],
        memory,
    )
    pools = tuple(
        pool if pool.instances is None else replace(pool, instances=fitted[pool.name].instances)
        for pool in request.pools
    )
    warnings = (one.warning for one in fitted.values() if one.warning)
    return replace(request, pools=pools, warnings=(*request.warnings, *warnings))


def weights_bytes(pools: Sequence[PoolModels]) -> dict[str, int]:
    """The size of the files that each worker of a pool loads."""
    return {
        pool.name: sum(content_bytes(v.path) for model in pool.models for v in served_versions(model))
        for pool in pools
    }


def pool_request(pool: PoolModels, settings: Settings) -> PoolRequest:
    """What the models of a pool, and the settings where these say nothing, ask for."""
    asked = settings.instances is not None or any(model.file.instances is not None for model in pool.models)
    placeable = [Placeable(model.name, model.file.pool, model.file.instances) for model in pool.models]
    instances = pool_instances(placeable, settings.instances or 1) if asked else None
    threads = _largest(pool, "threads") or settings.threads
    weight, spin = _largest(pool, "cpu_weight"), _agreed(pool, "spin")
    wishes = {"instances": instances, "threads": threads, "cpu_weight": weight, "spin": spin}
    shared = len(pool.models) > 1
    return PoolRequest(
        name=pool.name,
        instances=instances,
        threads=threads,
        shared=shared,
        # Lanes of other engines may come to a shared pool later, and its workers' environment stays as it is.
        engines=frozenset() if shared else _engines(pool, settings),
        own_engine=any(model.file.custom_engine for model in pool.models),
        allocator=_agreed(pool, "allocator") or settings.allocator,
        openmp=_agreed(pool, "openmp"),
        spin=spin,
        cpu_weight=weight,
        origins={
            key: origin
            for name, value in wishes.items()
            for key, origin in _wished(pool, settings, name, value)
        },
    )


def _engines(pool: PoolModels, settings: Settings) -> frozenset[str]:
    return frozenset(
        engine_of(model, version, settings) for model in pool.models for version in served_versions(model)
    )


def _largest(pool: PoolModels, key: str) -> int | None:
    """The most that a model of a pool asks for."""
    said = [value for model in pool.models if (value := getattr(model.file, key)) is not None]
    return max(said, default=None)


def _wished(pool: PoolModels, settings: Settings, key: str, value: object) -> Iterator[tuple[str, str]]:
    """Where a wish that was granted stands: in a model's file, else in the settings."""
    files = (model.file for model in pool.models if getattr(model.file, key) == value)
    for file in files:
        if value is not None and key in file.origins:
            yield key, str(file.origins[key])
            return
    yield from _origin(settings, key).items()


def _origin(settings: Settings, key: str) -> dict[str, str]:
    return {key: settings.origins[key]} if key in settings.origins else {}


def _agreed(pool: PoolModels, key: str) -> Any:
    """What all models of a pool that say something say; None when none does, or they disagree."""
    said = _said(pool, key)
    return said.pop() if len(said) == 1 else None


def _disagreement(pool: PoolModels, key: str) -> list[str]:
    said = _said(pool, key)
    if len(said) < 2:
        return []
    return [f"pool {pool.name}: its models ask for {key} {' and '.join(sorted(said))}: neither is taken"]


def _said(pool: PoolModels, key: str) -> set[Any]:
    return {said for model in pool.models if (said := getattr(model.file, key)) is not None}


def lanes(
    pool: PoolModels, plans: Sequence[ChildPlan], settings: Settings, ids: Iterator[int]
) -> list[LaneConfig]:
    """The lanes of a pool whose workers are planned so."""
    found = [(model, version) for model in pool.models for version in served_versions(model)]
    return [_lane(next(ids), model, version, plans[0], settings) for model, version in found]


def engine_of(model: FoundModel, version: FoundVersion, settings: Settings) -> str:
    """The engine that loads a version."""
    usual = engine_for_suffix(version.path.suffix, settings.engine)
    return model.file.engine or usual or DEFAULT_ENGINE


def _lane(
    lane: int, model: FoundModel, version: FoundVersion, plan: ChildPlan, settings: Settings
) -> LaneConfig:
    file = model.file
    engine = engine_of(model, version, settings)
    queues = queue_rules(file, settings)
    return LaneConfig(
        lane=lane,
        model=model.name,
        version=version.version,
        path=str(version.path),
        engine=engine,
        max_batch_size=_max_batch_size(file, settings),
        max_delay_ns=settings.max_delay_ns if file.max_delay_ns is None else file.max_delay_ns,
        max_queue_size=max(rules.max_queue_size for rules in queues),
        max_request_rows=settings.max_request_rows,
        run_timeout_ns=settings.run_timeout_ns if file.run_timeout_ns is None else file.run_timeout_ns,
        threads=min(file.threads, plan.threads) if file.threads else plan.threads,
        threads_asked=file.threads is not None or settings.threads is not None,
        spin=plan.spin if file.spin is None else file.spin,
        device=file.device or engine_traits(engine).device,
        parameters=dict(file.parameters),
        files_by_capability=dict(file.model_files_by_capability),
        inputs=file.inputs,
        outputs=file.outputs,
        served_outputs=file.served_outputs,
        warmup=file.warmup,
        origins={name: str(file.origins[name]) for name in _DECLARED if name in file.origins},
        preferred_batch_sizes=file.preferred_batch_sizes,
        priority_levels=file.priority_levels or 0,
        default_priority=file.default_priority or (len(queues) + 1) // 2,
        queues=queues,
        default_deadline_ns=(
            settings.default_deadline_ns if file.default_deadline_ns is None else file.default_deadline_ns
        ),
        tuned="" if file.tuned is None else str(file.tuned),
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
        max_queue_bytes=file.max_queue_bytes,
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
        max_queue_bytes=settings.max_queue_bytes
        if said("max_queue_bytes") is None
        else said("max_queue_bytes"),
        timeout_ns=said("default_timeout_ns") or 0,
        timeout_override=said("allow_timeout_override") or False,
        delay=said("timeout_action") == "delay",
    )
