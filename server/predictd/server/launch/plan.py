"""Which child runs where, with how many threads, and why.

Theory of operation. One thread per physical core computes best, so a worker gets as many threads as there are
cores in its mask; SMT siblings stay in the mask for whatever else runs. There is one worker on each NUMA node, so
that memory is near. Workers of the only pool get CPUs of their own, in whole cores as long as there are enough.
Several pools share all CPUs, whichever has work may use them all, unless their weights divide the cores. A quota
counts time, not places: with one, masks stay wide and the thread counts follow the quota. Front ends float over
all CPUs, and the scheduler finds them a free one. docs/launcher.md has the rules one by one.

`shares` says which cores each pool may use, `placing` how many workers of how many threads it has there, `dealing`
gives each worker its cores, `children` adds what follows from that; here it comes together.
"""

from __future__ import annotations

from collections import Counter

from predictd.server.launch.advice import cut_cores, machine_warnings, pool_warnings, total_load
from predictd.server.launch.budget import Budget
from predictd.server.launch.children import environment_advice, frontend, worker
from predictd.server.launch.placing import Surroundings, place
from predictd.server.launch.requests import (
    ChildPlan,
    Choice,
    LaunchPlan,
    PlanRequest,
    PoolRequest,
    RunningPool,
    as_asked,
    check,
    count,
)
from predictd.server.launch.sandbox.confinement import sandbox_warnings
from predictd.server.launch.shares import divide
from predictd.server.launch.topology import Topology

__all__ = ["ChildPlan", "LaunchPlan", "PlanRequest", "PoolRequest", "RunningPool", "plan"]

CPUS_PER_FRONTEND = 4
FRONTENDS_MAX = 8


def plan(topology: Topology, budget: Budget, request: PlanRequest) -> LaunchPlan:
    """Plan every child.

    Args:
        topology: Of the machine.
        budget: What this process may use of it.
        request: What the user asked for. Explicit numbers win, as far as the budget has CPUs for them.

    Raises:
        ValueError: A number below 1 is asked for, or two pools have one name.
    """
    check(request)
    number_of_frontends = _frontend_count(budget, request)
    shares, division = divide(topology, budget, request)
    everyone = [pool.name for pool in request.everyone]
    placements = {
        pool.name: place(
            pool,
            shares[pool.name],
            Surroundings(topology, budget.throttled, everyone.index(pool.name), len(everyone)),
        )
        for pool in request.pools
    }
    # Of the masks, not of what was meant: pools that run already stay where they are.
    allowed = Counter(cpu for each in placements.values() for mask in each.masks for cpu in mask)
    allowed.update(cpu for running in request.beside for cpu in running.cpus)
    contested = frozenset(cpu for cpu, workers in allowed.items() if workers > 1)
    pools = {
        pool.name: tuple(
            worker(topology, budget, request, pool, placements[pool.name], number, contested)
            for number in range(len(placements[pool.name].masks))
        )
        for pool in request.pools
    }
    by_name = {pool.name: pool for pool in request.pools}
    load, asked = total_load(budget.effective_cpus, by_name, placements)
    reasons = [
        *topology.reasons,
        *_machine_reasons(topology, budget),
        number_of_frontends.reason,
        *([request.carrier] if request.carrier else []),
        *division,
        *([load] if load and not asked else []),
    ]
    warnings = [
        *request.warnings,
        *budget.warnings,
        *environment_advice(request),
        *machine_warnings(request.facilities),
        *sandbox_warnings(request.sandbox, request.facilities.sandbox),
        *([number_of_frontends.warning] if number_of_frontends.warning else []),
        *(
            warning
            for pool in request.pools
            for warning in pool_warnings(topology, pool, shares[pool.name], placements[pool.name])
        ),
        *cut_cores(topology, placements),
        *([load] if load and asked else []),
    ]
    children = (frontend(budget, request),) * number_of_frontends.value
    return LaunchPlan(children, pools, tuple(reasons), tuple(warnings))


def _machine_reasons(topology: Topology, budget: Budget) -> list[str]:
    cores = topology.cores(budget.cpus)
    cpus = len(budget.cpus)
    head = f"{count(cpus, 'CPU')} on {count(len(cores), 'core')}"
    if cpus != len(cores):
        head = f"{head}: one thread per core, the SMT siblings serve the rest"
    nodes = topology.by_node(cores)
    caches = sum(len(topology.by_cache(node)) for node in nodes)
    shape = [
        count(len(nodes), "NUMA node") if len(nodes) > 1 else "",
        count(caches, "L3 cache") if caches > 1 else "",
    ]
    inside = " and ".join(filter(None, shape))
    return [head, f"these cores lie in {inside}"] if inside else [head]


def _frontend_count(budget: Budget, request: PlanRequest) -> Choice:
    usable, asked = budget.effective_cpus, request.frontends
    if asked is not None:
        warning = f"{asked} front ends for {count(usable, 'usable CPU')}" if asked > usable else ""
        return Choice(asked, f"front ends: {asked}, {as_asked(request.origins, 'frontends')}", warning)
    number = max(1, min(FRONTENDS_MAX, usable // CPUS_PER_FRONTEND))
    why = f"one for every {CPUS_PER_FRONTEND} usable CPUs, at least 1, at most {FRONTENDS_MAX}"
    return Choice(number, f"front ends: {number}, {why}")
