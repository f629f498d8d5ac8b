"""One child's part of the plan: mask, threads, memory, waiting, environment, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.environment import (
    Role,
    choose_variables,
    environment_reasons,
    environment_warnings,
)
from predictd.server.launch.placing import Placement
from predictd.server.launch.requests import ChildPlan, PlanRequest, PoolRequest, count
from predictd.server.launch.sandbox.confinement import confine
from predictd.server.launch.topology import Topology
from predictd.server.launch.variables import Variable


def frontend(budget: Budget, request: PlanRequest) -> ChildPlan:
    """Any front end."""
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


def worker(
    topology: Topology,
    budget: Budget,
    request: PlanRequest,
    pool: PoolRequest,
    placement: Placement,
    number: int,
    contested: Collection[int],
) -> ChildPlan:
    """A worker.

    Args:
        topology: Of the machine.
        budget: What this process may use of it.
        request: What the user asked for.
        pool: The worker's.
        placement: Of its pool.
        number: In its pool.
        contested: CPUs that several workers are allowed on.
    """
    mask = placement.masks[number]
    own = not set(mask) & set(contested)
    spin, spin_reason = _spin(pool, budget, own=own)
    nodes, memory_reason = _memory(topology, mask)
    sandbox = request.sandbox
    confinement, sandbox_reasons = confine(sandbox, request.facilities.sandbox, own_engine=pool.own_engine)
    reasons = [
        placement.workers.reason,
        f"CPUs {format_cpulist(mask)}: {placement.reason}",
        placement.threads.reason,
        *memory_reason,
        spin_reason,
        *([f"user: {sandbox.user.name}, as asked"] if sandbox.user else []),
        *sandbox_reasons,
        *environment_reasons(pool.engines, pool.allocator, request.facilities, request.environment),
    ]
    child = ChildPlan(
        mask, placement.threads.value, own, spin, {}, tuple(reasons), nodes, confinement, sandbox.user
    )
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
    return _with_environment(child, variables)


def environment_advice(request: PlanRequest) -> tuple[str, ...]:
    """What the user exported or asked for without the effect that it should have."""
    open_to_any = any(not pool.engines for pool in request.pools)
    return environment_warnings(
        frozenset() if open_to_any else frozenset().union(*(pool.engines for pool in request.pools)),
        request.facilities,
        request.environment,
        allocators=frozenset(pool.allocator for pool in request.pools),
        openmp=frozenset(pool.openmp for pool in request.pools if pool.openmp),
    )


def _spin(pool: PoolRequest, budget: Budget, *, own: bool) -> tuple[bool, str]:
    if pool.spin is not None:
        return pool.spin, f"waiting: {'spins' if pool.spin else 'sleeps'}, {pool.asked('spin')}"
    if budget.throttled:
        return False, "waiting: sleeps, as the quota counts the time of a thread that spins"
    if len(budget.cpus) == 1:
        return False, "waiting: sleeps, as what is waited for needs the only CPU"
    if own:
        return True, "waiting: spins, as no other worker runs on its CPUs"
    return False, "waiting: sleeps, as other workers may run on its CPUs"


def _memory(topology: Topology, mask: Collection[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The nodes to prefer: those of the CPUs, where there are others."""
    if len(topology.nodes) < 2:
        return (), ()
    nodes = topology.nodes_of(mask)
    if nodes == topology.nodes:
        return (), ("memory: left where it is first touched, as its CPUs are on all NUMA nodes",)
    which = f"NUMA {count(len(nodes), 'node').partition(' ')[2]} {format_cpulist(nodes)}"
    return nodes, (f"memory: {which} preferred, that of its CPUs",)


def _with_environment(child: ChildPlan, variables: Sequence[Variable]) -> ChildPlan:
    environment = {variable.name: variable.value for variable in variables}
    because = tuple(f"{variable.name}={variable.value}: {variable.reason}" for variable in variables)
    return replace(child, environment=environment, reasons=(*child.reasons, *because))
