"""Which cores each pool may use: all of them as long as nobody weighs, else a part by weight."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.requests import DEFAULT_CPU_WEIGHT, PlanRequest, PoolRequest, count
from predictd.server.launch.topology import Core, Topology


@dataclass(frozen=True, slots=True)
class Share:
    """What a pool may use.

    Attributes:
        cores: With those of their CPUs that it may use; at least one.
        threads: How many can compute at once.
        apart: No other pool is planned there.
        reason: Why these; empty where they are all there are.
    """

    cores: tuple[Core, ...]
    threads: int
    apart: bool
    reason: str = ""

    @property
    def cpus(self) -> tuple[int, ...]:
        """All of them, ascending."""
        return tuple(sorted(itertools.chain(*self.cores)))


def divide(topology: Topology, budget: Budget, request: PlanRequest) -> tuple[dict[str, Share], list[str]]:
    """Say what each pool may use.

    Args:
        topology: Of the machine.
        budget: What this process may use of it.
        request: Which pools there are.

    Returns:
        For each pool, those that run already included, its share; and the reasons.
    """
    pools = request.everyone
    cores = topology.cores(budget.cpus)
    if len(pools) < 2:
        return _whole(topology, budget, cores, pools, apart=True), []
    if all(pool.cpu_weight is None for pool in pools):
        why = f"{len(pools)} pools share all CPUs: each may use what the others leave idle"
        return _whole(topology, budget, cores, pools, apart=False), [why]
    weights = [pool.cpu_weight or DEFAULT_CPU_WEIGHT for pool in pools]
    if budget.throttled:
        return _weighted_threads(topology, budget, cores, pools, weights)
    wanted = sum(_wanted(pool) for pool in pools)
    units, unit = _computing(topology, cores, wanted), "core"
    if len(units) < len(pools):
        # No core gets a second pool before every core has one.
        rounds = itertools.zip_longest(*cores)
        units, unit = tuple((cpu,) for round_ in rounds for cpu in round_ if cpu is not None), "CPU"
    if len(units) < len(pools):
        load = f"{count(len(pools), 'pool')} on {count(len(units), 'CPU')}"
        why = f"{load}: too few to divide by cpu_weight, so all pools share them"
        return _whole(topology, budget, cores, pools, apart=False), [why]
    sizes = apportion(len(units), weights)
    ends = list(itertools.accumulate(sizes))
    shares = {
        pool.name: Share(part, sum(map(len, part)), apart=True, reason="its share by cpu_weight")
        for pool, size, end in zip(pools, sizes, ends, strict=True)
        for part in [units[end - size : end]]
    }
    reasons = [f"{count(len(units), unit)} by cpu_weight: {_division(pools, sizes, weights)}"]
    return shares, [*_left_out(topology, cores, units), *reasons]


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide by weight in whole numbers: the largest remainders are rounded up, and nobody goes without.

    Args:
        total: At least as many as there are weights.
        weights: At least 1 each.
    """
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(weights)), key=lambda n: (parts[n] - exact[n], n))
    for number in by_remainder[: total - sum(parts)]:
        parts[number] += 1
    while 0 in parts:
        # The one that has most for its weight gives.
        most = max(range(len(parts)), key=lambda n: (parts[n] > 1, parts[n] - exact[n], parts[n]))
        parts[most] -= 1
        parts[parts.index(0)] = 1
    return parts


def _weighted_threads(
    topology: Topology,
    budget: Budget,
    cores: tuple[Core, ...],
    pools: Sequence[PoolRequest],
    weights: Sequence[int],
) -> tuple[dict[str, Share], list[str]]:
    """Under a quota: time is divided, not places."""
    shares = _whole(topology, budget, cores, pools, apart=False)
    if budget.effective_cpus < len(pools):
        load = f"{count(len(pools), 'pool')} under a quota for {count(budget.effective_cpus, 'thread')}"
        return shares, [f"{load}: too few to divide by cpu_weight"]
    sizes = apportion(budget.effective_cpus, weights)
    shares = {
        pool.name: Share(shares[pool.name].cores, size, apart=False)
        for pool, size in zip(pools, sizes, strict=True)
    }
    head = f"{count(budget.effective_cpus, 'thread')} of the quota by cpu_weight"
    return shares, [f"{head}: {_division(pools, sizes, weights)}"]


def _division(pools: Sequence[PoolRequest], sizes: Sequence[int], weights: Sequence[int]) -> str:
    parts = zip(pools, sizes, weights, strict=True)
    return ", ".join(f"{pool.name} {size} ({_weight(pool, weight)})" for pool, size, weight in parts)


def _weight(pool: PoolRequest, weight: int) -> str:
    if pool.cpu_weight is None:
        return f"weight {weight}, the default"
    origin = pool.origins.get("cpu_weight")
    return f"weight {weight}, {origin}" if origin else f"weight {weight}"


def _whole(
    topology: Topology,
    budget: Budget,
    cores: tuple[Core, ...],
    pools: Iterable[PoolRequest],
    *,
    apart: bool,
) -> dict[str, Share]:
    shares: dict[str, Share] = {}
    for pool in pools:
        used = _computing(topology, cores, _wanted(pool))
        why = "; ".join(_left_out(topology, cores, used))
        threads = min(budget.effective_cpus, sum(map(len, used)))
        shares[pool.name] = Share(used, threads, apart, why)
    return shares


def _wanted(pool: PoolRequest) -> int:
    """Threads that somebody asked for."""
    return (pool.instances or 1) * (pool.threads or 1)


def _computing(topology: Topology, cores: tuple[Core, ...], wanted: int) -> tuple[Core, ...]:
    """The fast cores of a hybrid processor, unless there are none or more threads were asked for."""
    fast = tuple(core for core in cores if not topology.efficient(core))
    return fast if len(fast) >= wanted else cores


def _left_out(topology: Topology, cores: Sequence[Core], used: Sequence[Core]) -> list[str]:
    """Why the slow cores are not used, or are."""
    slow = [core for core in cores if topology.efficient(core)]
    if not slow or len(slow) == len(cores):
        return []
    names = format_cpulist(itertools.chain(*slow))
    if slow[0] in used or (slow[0][0],) in used:
        return [f"E cores {names} compute too: there are fewer P cores than threads asked for"]
    return [f"E cores {names} are left to the front ends: a run waits for its slowest thread"]
