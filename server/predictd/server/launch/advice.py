"""What a person should think over before starting: warnings about a plan, and about the machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from predictd.server.launch.facilities import Facilities
from predictd.server.launch.placing import Placement
from predictd.server.launch.requests import PoolRequest, count
from predictd.server.launch.shares import Share
from predictd.server.launch.topology import Topology

# Those that follow the load let a CPU sleep between two requests, too, but wake it within milliseconds.
_SLOW_GOVERNORS = ("powersave", "conservative")


def pool_warnings(topology: Topology, pool: PoolRequest, share: Share, placement: Placement) -> Iterator[str]:
    """What the user asked of one pool that its CPUs do not have."""
    workers, threads = len(placement.masks), placement.threads.value
    if placement.threads.warning:
        yield placement.threads.warning
    load = f"{count(workers, 'worker')} of {count(threads, 'thread')}"
    if workers * threads > share.threads:
        yield f"pool {pool.name}: {load} on {count(share.threads, 'usable CPU')}: oversubscribed"
        return
    cores = len(topology.cores(cpu for mask in placement.masks for cpu in mask))
    if workers * threads > cores:
        on = f"{load} on {count(cores, 'core')}"
        yield f"pool {pool.name}: {on}: SMT siblings compute beside each other, slower than a core each"


def cut_cores(topology: Topology, placements: Mapping[str, Placement]) -> Iterator[str]:
    """Cores whose siblings went to different pools."""
    pools: dict[int, set[str]] = defaultdict(set)
    cores = {cpu: core[0] for core in topology.cores(topology.ids) for cpu in core}
    owners: dict[int, set[str]] = defaultdict(set)
    for name, placement in placements.items():
        for cpu in {cpu for mask in placement.masks for cpu in mask}:
            pools[cores.get(cpu, cpu)].add(name)
            owners[cpu].add(name)
    alone = {cores.get(cpu, cpu) for cpu, names in owners.items() if len(names) == 1}
    cut = [core for core, names in pools.items() if len(names) > 1 and core in alone]
    if cut:
        yield f"{count(len(cut), 'core')} divided among pools: SMT siblings compute beside each other"


def total_load(
    budget_threads: int, pools: Mapping[str, PoolRequest], placements: Mapping[str, Placement]
) -> tuple[str, bool]:
    """What all pools together can want at once, if that is more than there is.

    Returns:
        A line, empty where there is enough; and whether the user asked for so much.
    """
    loads = {name: len(each.masks) * each.threads.value for name, each in placements.items()}
    total = sum(loads.values())
    if len(pools) < 2 or total <= budget_threads:
        return "", False
    asked = [name for name, pool in pools.items() if pool.instances is not None or pool.threads is not None]
    asked_for = sum(loads[name] for name in asked)
    usable = count(budget_threads, "usable CPU")
    if len(asked) > 1 and asked_for > budget_threads:
        return f"{len(asked)} pools with {asked_for} threads as asked on {usable}: oversubscribed", True
    return f"{len(pools)} pools have {total} threads on {usable}: enough while not all are busy", False


def machine_warnings(facilities: Facilities) -> Iterator[str]:
    """What of the system costs time and can be changed."""
    if facilities.transparent_hugepages == "never":
        yield (
            "no huge pages: /sys/kernel/mm/transparent_hugepage/enabled says never; "
            "madvise lets weights and arenas have them"
        )
    slow = [name for name in (facilities.governor or "").split(",") if name in _SLOW_GOVERNORS]
    if slow:
        yield (
            f"the CPU frequency governor is {' and '.join(slow)}: the first requests after a pause are slow; "
            "performance keeps the clock up"
        )
