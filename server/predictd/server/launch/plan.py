"""Which child runs where, with how many threads, and why.

Theory of operation. One thread per physical core computes best, so a worker gets as many threads as there are
cores in its mask; SMT siblings stay in the mask for whatever else runs. Workers of the only pool get CPUs of
their own, in whole cores as long as there are enough. Several pools share all CPUs: whichever has work may
use them all. A quota counts time, not places: with one, every child keeps the whole mask and the thread
counts follow the quota. Front ends float over all CPUs, and the scheduler finds them a free one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.environment import (
    Role,
    choose_variables,
    environment_reasons,
    environment_warnings,
)
from predictd.server.launch.facilities import Facilities
from predictd.server.launch.topology import Topology
from predictd.server.launch.variables import Variable

CPUS_PER_FRONTEND = 4
FRONTENDS_MAX = 8
SHARED_POOL_THREADS_MAX = 4


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """A pool of identical workers.

    Attributes:
        name: Of the pool.
        instances: Workers; None lets the plan decide.
        threads: Threads of one run; None lets the plan decide.
        shared: The pool hosts the lanes of many models, each with an engine and engine threads of its own.
        engines: Of its lanes; an empty set says that they may be any.
        allocator: That its workers shall have; None lets the plan decide.
        openmp: OpenMP runtime that its workers shall have; None is whichever the engine brings.
    """

    name: str
    instances: int | None = None
    threads: int | None = None
    shared: bool = False
    engines: frozenset[str] = frozenset()
    allocator: str | None = None
    openmp: str | None = None


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user asked for.

    Attributes:
        pools: Each with a name of its own.
        frontends: Front-end processes; None lets the plan decide.
        environment: The variables that the user exported.
        facilities: What the system has.
        warnings: What was found wrong with the request before.
    """

    pools: tuple[PoolRequest, ...]
    frontends: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    facilities: Facilities = field(default_factory=Facilities)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process.

    Attributes:
        cpus: Its affinity mask, ascending.
        threads: Threads that compute at once.
        owns_cores: It is a worker, and no other worker of any pool is allowed on its CPUs.
        spin: Threads that wait for each other within a run may spin.
        environment: The variables that the plan decides, over what the supervisor inherited.
        reasons: Why all that.
        numa_nodes: Memory nodes that it prefers; none leaves its memory where its CPUs are.
    """

    cpus: tuple[int, ...]
    threads: int
    owns_cores: bool
    spin: bool
    environment: Mapping[str, str]
    reasons: tuple[str, ...]
    numa_nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All children.

    Attributes:
        frontends: One each.
        pools: For each pool its workers.
        reasons: Why so many.
        warnings: What the user asked for and should think over.
    """

    frontends: tuple[ChildPlan, ...]
    pools: Mapping[str, tuple[ChildPlan, ...]]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Machine:
    """What every decision looks at.

    Attributes:
        cores: The budget's CPUs, grouped by core.
        best_threads: One thread per core, as far as the quota allows.
    """

    budget: Budget
    cores: tuple[tuple[int, ...], ...]
    best_threads: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """A number, and why."""

    value: int
    reason: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class _Masks:
    """One mask for each worker of a pool, and why."""

    masks: tuple[tuple[int, ...], ...]
    own: bool
    reason: str


def plan(topology: Topology, budget: Budget, request: PlanRequest) -> LaunchPlan:
    """Plan every child.

    Args:
        topology: Of the machine.
        budget: What this process may use of it.
        request: What the user asked for. Explicit numbers win, as far as the budget has CPUs for them.

    Raises:
        ValueError: A number below 1 is asked for, or two pools have one name.
    """
    _check(request)
    cores = topology.cores(budget.cpus)
    machine = _Machine(budget, cores, min(len(cores), budget.effective_cpus))
    count = _frontend_count(budget, request.frontends)
    frontend = _frontend(budget, request)
    pools: dict[str, tuple[ChildPlan, ...]] = {}
    reasons = [*topology.reasons, _core_reason(machine), count.reason]
    warnings = [*request.warnings, *_environment_warnings(request), *_warning(count)]
    if len(request.pools) > 1:
        reasons.append(f"{len(request.pools)} pools share all CPUs: each may use what the others leave idle")
    for pool in request.pools:
        instances = pool.instances or 1
        threads = _threads(pool, instances, machine)
        masks = _masks(machine, instances, threads.value, pools=len(request.pools))
        workers = (_worker(mask, threads, masks, budget) for mask in masks.masks)
        pools[pool.name] = tuple(_worker_environment(worker, pool, request) for worker in workers)
        warnings += _pool_warnings(pool, instances, threads, budget)
    return LaunchPlan((frontend,) * count.value, pools, tuple(reasons), tuple(warnings))


def _check(request: PlanRequest) -> None:
    names = [pool.name for pool in request.pools]
    if len(set(names)) != len(names):
        raise ValueError(f"two pools have one name: {', '.join(names)}")
    numbers = {"frontends": request.frontends}
    for pool in request.pools:
        numbers |= {f"instances of {pool.name}": pool.instances, f"threads of {pool.name}": pool.threads}
    for what, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{what} must be at least 1, not {number}")


def _core_reason(machine: _Machine) -> str:
    cpus, cores = len(machine.budget.cpus), len(machine.cores)
    head = f"{_count(cpus, 'CPU')} on {_count(cores, 'core')}"
    return head if cpus == cores else f"{head}: one thread per core, the SMT siblings serve the rest"


def _frontend_count(budget: Budget, asked: int | None) -> _Choice:
    usable = budget.effective_cpus
    if asked is not None:
        warning = f"{asked} front ends for {_count(usable, 'usable CPU')}" if asked > usable else None
        return _Choice(asked, f"front ends: {asked}, as asked", warning)
    count = max(1, min(FRONTENDS_MAX, usable // CPUS_PER_FRONTEND))
    why = f"one for every {CPUS_PER_FRONTEND} usable CPUs, at least 1, at most {FRONTENDS_MAX}"
    return _Choice(count, f"front ends: {count}, {why}")


def _threads(pool: PoolRequest, instances: int, machine: _Machine) -> _Choice:
    usable = machine.budget.effective_cpus
    if pool.threads is not None:
        if pool.threads <= usable:
            return _Choice(pool.threads, f"threads: {pool.threads}, as asked")
        reason = f"threads: {usable} instead of the {pool.threads} asked for, as no more can run at once"
        return _Choice(usable, reason, f"pool {pool.name}: {reason}")
    share = max(1, machine.best_threads // instances)
    cores = _count(machine.best_threads, "usable core")
    if pool.shared and share > SHARED_POOL_THREADS_MAX:
        why = "each lane of a shared pool has engine threads of its own, and there may be hundreds of lanes"
        return _Choice(SHARED_POOL_THREADS_MAX, f"threads: {SHARED_POOL_THREADS_MAX} of {cores}, as {why}")
    if instances > 1:
        return _Choice(share, f"threads: {share}, a share of {cores} for {instances} workers")
    return _Choice(share, f"threads: {share}, one per usable core")


def _masks(machine: _Machine, instances: int, threads: int, *, pools: int) -> _Masks:
    cpus = machine.budget.cpus
    whole = (cpus,) * instances
    if pools > 1:
        return _Masks(whole, own=False, reason="all CPUs, shared with the other pools")
    if instances == 1:
        return _Masks(whole, own=True, reason="all CPUs, no other worker needs them")
    if machine.budget.throttled:
        return _Masks(whole, own=False, reason="all CPUs: a quota counts time, not places")
    for what, units in (("whole core", machine.cores), ("CPU", _single_cpus(machine.cores, instances))):
        share = len(units) // instances
        if share >= threads:
            return _Masks(
                _deal(units, share, instances), own=True, reason=f"{_count(share, what)} for each worker"
            )
    load = f"{instances} workers of {_count(threads, 'thread')}"
    why = f"{load} do not fit side by side on {_count(len(cpus), 'CPU')}"
    return _Masks(whole, own=False, reason=f"all CPUs: {why}")


def _single_cpus(cores: Sequence[tuple[int, ...]], instances: int) -> tuple[tuple[int, ...], ...]:
    """Each CPU alone, in the order in which the workers take them."""
    by_core = [cpu for core in cores for cpu in core]
    if len(by_core) // instances > 1:
        # Siblings next to each other: as few cores as possible are cut in two.
        return tuple((cpu,) for cpu in by_core)
    # One CPU for each worker: no core gets a second one before every core has one.
    rounds = itertools.zip_longest(*cores)
    return tuple((cpu,) for round_ in rounds for cpu in round_ if cpu is not None)


def _deal(units: Sequence[tuple[int, ...]], share: int, instances: int) -> tuple[tuple[int, ...], ...]:
    """Equal shares, as the workers of a pool are identical. What is left over is free for the front ends."""
    shares = (units[worker * share : (worker + 1) * share] for worker in range(instances))
    return tuple(tuple(sorted(cpu for unit in share_units for cpu in unit)) for share_units in shares)


def _worker(mask: tuple[int, ...], threads: _Choice, masks: _Masks, budget: Budget) -> ChildPlan:
    where = f"CPUs {format_cpulist(mask)}: {masks.reason}"
    spin = "no other worker runs on its CPUs" if masks.own else "other workers may run on its CPUs"
    may_spin = masks.own and not budget.throttled
    return ChildPlan(mask, threads.value, masks.own, may_spin, {}, (where, threads.reason, spin))


def _worker_environment(child: ChildPlan, pool: PoolRequest, request: PlanRequest) -> ChildPlan:
    variables = choose_variables(
        Role.WORKER,
        engines=pool.engines,
        threads=child.threads,
        cpus=child.cpus,
        passive=not child.spin,
        allocator=pool.allocator,
        facilities=request.facilities,
        exported=request.environment,
        openmp=pool.openmp,
    )
    why = environment_reasons(pool.engines, pool.allocator, request.facilities, request.environment)
    return _with_environment(replace(child, reasons=(*child.reasons, *why)), variables)


def _frontend(budget: Budget, request: PlanRequest) -> ChildPlan:
    where = f"CPUs {format_cpulist(budget.cpus)}: a front end floats, the scheduler finds it a free CPU"
    why = "threads: 1, a front end waits for the network more than it computes"
    child = ChildPlan(budget.cpus, 1, owns_cores=False, spin=False, environment={}, reasons=(where, why))
    variables = choose_variables(
        Role.FRONTEND,
        engines=frozenset(),
        threads=child.threads,
        cpus=child.cpus,
        passive=True,
        allocator=None,
        facilities=request.facilities,
        exported=request.environment,
    )
    return _with_environment(child, variables)


def _with_environment(child: ChildPlan, variables: Sequence[Variable]) -> ChildPlan:
    environment = {variable.name: variable.value for variable in variables}
    because = tuple(f"{variable.name}={variable.value}: {variable.reason}" for variable in variables)
    return replace(child, environment=environment, reasons=(*child.reasons, *because))


def _environment_warnings(request: PlanRequest) -> tuple[str, ...]:
    open_to_any = any(not pool.engines for pool in request.pools)
    return environment_warnings(
        frozenset() if open_to_any else frozenset().union(*(pool.engines for pool in request.pools)),
        request.facilities,
        request.environment,
        allocators=frozenset(pool.allocator for pool in request.pools),
        openmp=frozenset(pool.openmp for pool in request.pools if pool.openmp),
    )


def _pool_warnings(pool: PoolRequest, instances: int, threads: _Choice, budget: Budget) -> list[str]:
    warnings = _warning(threads)
    total = instances * threads.value
    if total > budget.effective_cpus:
        load = f"{_count(instances, 'worker')} of {_count(threads.value, 'thread')}"
        usable = _count(budget.effective_cpus, "usable CPU")
        warnings.append(f"pool {pool.name}: {load} on {usable}: oversubscribed")
    return warnings


def _warning(choice: _Choice) -> list[str]:
    return [] if choice.warning is None else [choice.warning]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
