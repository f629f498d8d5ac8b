"""How many workers a pool has, with how many threads each, and where: its masks.

Alone on its cores, a pool deals them out. Beside others, or under a quota, its workers float: over the CPUs of a NUMA
node where there are several, else over all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from predictd.server.launch.dealing import Deal, Group, deal, workers_for
from predictd.server.launch.requests import Choice, PoolRequest, count
from predictd.server.launch.shares import Share
from predictd.server.launch.topology import Core, Topology

SHARED_POOL_THREADS_MAX = 4


@dataclass(frozen=True, slots=True)
class Placement:
    """The workers of one pool.

    Attributes:
        masks: One each.
        workers: How many, and why.
        threads: Of each, and why.
        reason: Why there.
    """

    masks: tuple[tuple[int, ...], ...]
    workers: Choice
    threads: Choice
    reason: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pool must know of the others.

    Attributes:
        topology: Of the machine.
        throttled: A quota allows less than the CPUs could do.
        number: Of this pool among all.
        pools: How many there are.
    """

    topology: Topology
    throttled: bool
    number: int = 0
    pools: int = 1


def place(pool: PoolRequest, share: Share, around: Surroundings) -> Placement:
    """Place the workers of a pool on its share."""
    workers, cores = _workers(pool, share, around)
    asked = _asked_threads(pool, share)
    if around.throttled or not share.apart:
        return _floating(pool, share, around, workers, cores)
    dealt = _dealt(pool, around, cores, workers, asked)
    usable = min(len(cores), share.threads)
    if dealt is None:
        threads = asked or _default_threads(pool, 1, workers.value, usable)
        load = f"{count(workers.value, 'worker')} of {count(threads.value, 'thread')}"
        room = count(len(_cpus(cores)), "CPU")
        masks, where = _by_node(around.topology.by_node(cores), workers.value, threads.value)
        return Placement(masks, workers, threads, f"{where}: {load} do not fit side by side on {room}")
    # On part of a core, more than one thread would compute beside its sibling.
    size = dealt.size if dealt.unit == "whole core" else 1
    threads = asked or _default_threads(pool, min(size, share.threads), workers.value, usable)
    return Placement(dealt.masks, workers, threads, _place_reason(share, dealt))


def _workers(pool: PoolRequest, share: Share, around: Surroundings) -> tuple[Choice, tuple[Core, ...]]:
    """How many, and which of the cores they shall use."""
    if pool.instances is not None:
        reason = f"workers: {pool.instances}, {pool.asked('instances')}"
        return Choice(pool.instances, reason), share.cores
    nodes = around.topology.by_node(share.cores)
    if len(nodes) == 1:
        return Choice(1, "workers: 1, whose threads use the cores together"), share.cores
    if around.throttled and share.threads <= max(map(len, nodes)):
        return Choice(1, "workers: 1, as one NUMA node has cores for the whole quota"), share.cores
    wide = [node for node in nodes if len(node) >= (pool.threads or 1)]
    if not wide:
        why = f"{count(pool.threads or 1, 'thread')} need more cores than a NUMA node has"
        return Choice(1, f"workers: 1, as {why}"), share.cores
    if not share.apart and around.pools * len(nodes) > share.threads:
        why = "on one NUMA node, as there are many pools; they take turns"
        return Choice(1, f"workers: 1, {why}"), wide[around.number % len(wide)]
    return _near_memory(pool, nodes, wide)


def _near_memory(
    pool: PoolRequest, nodes: Sequence[Group], wide: Sequence[Group]
) -> tuple[Choice, tuple[Core, ...]]:
    """As a rule one for each node; `wide` are those with cores enough for the threads that were asked for."""
    if pool.threads is not None:
        number, used = len(wide), wide
        how = "one for each NUMA node" + (" with cores enough" if len(wide) < len(nodes) else "")
    else:
        number, used = workers_for(nodes), nodes
        how = "one for each NUMA node" if number == len(nodes) else "none of which leaves its NUMA node"
    return Choice(number, f"workers: {number}, {how}, so that memory is near"), tuple(itertools.chain(*used))


def _dealt(
    pool: PoolRequest, around: Surroundings, cores: tuple[Core, ...], workers: Choice, threads: Choice | None
) -> Deal | None:
    room = None if threads is None else threads.value
    # So few workers as were asked for shall use every core; the plan itself chose their number to stay near memory.
    return deal(around.topology, cores, workers.value, room, spanning=pool.instances is not None)


def _asked_threads(pool: PoolRequest, share: Share) -> Choice | None:
    if pool.threads is None:
        return None
    if pool.threads <= share.threads:
        return Choice(pool.threads, f"threads: {pool.threads}, {pool.asked('threads')}")
    reason = f"threads: {share.threads} instead of the {pool.threads} asked for, as no more can run at once"
    return Choice(share.threads, reason, f"pool {pool.name}: {reason}")


def _default_threads(pool: PoolRequest, size: int, workers: int, usable: int) -> Choice:
    if pool.shared and size > SHARED_POOL_THREADS_MAX:
        why = "each lane of a shared pool has engine threads of its own, and there may be hundreds of lanes"
        most = SHARED_POOL_THREADS_MAX
        return Choice(most, f"threads: {most} of {count(size, 'usable core')}, as {why}")
    if workers > 1:
        return Choice(
            size, f"threads: {size}, a share of {count(usable, 'usable core')} for {workers} workers"
        )
    return Choice(size, f"threads: {size}, one per usable core")


def _floating(
    pool: PoolRequest,
    share: Share,
    around: Surroundings,
    workers: Choice,
    cores: tuple[Core, ...],
) -> Placement:
    nodes = around.topology.by_node(cores)
    why = "a quota counts time, not places" if around.throttled else "shared with the other pools"
    asked = _asked_threads(pool, share)
    usable = min(len(cores), share.threads)
    each = max(1, usable // workers.value)
    load = workers.value * (each if asked is None else asked.value)
    # A quota that one node has cores for is little beside what else runs: the scheduler knows where it is quiet.
    if len(nodes) == 1 or (around.throttled and load <= max(map(len, nodes))):
        threads = asked or _default_threads(pool, each, workers.value, usable)
        masks, where = (_cpus(cores),) * workers.value, _all_cpus(share, cores)
    else:
        dealt = _dealt(pool, around, cores, workers, asked)
        size = each if dealt is None else min(each, dealt.size)
        threads = asked or _default_threads(pool, size, workers.value, usable)
        # Where the CPUs are shared anyway, not even a worker that does not fit beside the others need leave its node.
        if dealt is not None and (dealt.within or asked is None):
            masks, where = tuple(_widened(mask, nodes) for mask in dealt.masks), "all CPUs of its NUMA nodes"
        else:
            masks, where = _by_node(nodes, workers.value, threads.value, around.number)
    reason = f"{where}: {why}"
    return Placement(masks, workers, threads, f"{reason}; {share.reason}" if share.reason else reason)


def _cpus(cores: Sequence[Core]) -> tuple[int, ...]:
    return tuple(sorted(itertools.chain(*cores)))


def _all_cpus(share: Share, cores: tuple[Core, ...]) -> str:
    if cores != share.cores:
        return "all CPUs of its NUMA node"
    return "all CPUs of these cores" if share.reason else "all CPUs"


def _widened(mask: Sequence[int], nodes: Sequence[Sequence[Core]]) -> tuple[int, ...]:
    """All CPUs of the nodes that a mask lies in."""
    inside = (node for node in nodes if any(set(core) & set(mask) for core in node))
    return tuple(sorted(cpu for node in inside for core in node for cpu in core))


def _by_node(
    nodes: Sequence[Sequence[Core]], workers: int, threads: int, first: int = 0
) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Nodes in turn, or all CPUs where there is one node, or none has enough."""
    by_cores = [_cpus(node) for node in nodes if len(node) >= threads]
    wide = by_cores or [_cpus(node) for node in nodes if len(_cpus(node)) >= threads]
    if len(nodes) == 1 or not wide:
        return (_cpus(tuple(itertools.chain(*nodes))),) * workers, "all CPUs"
    masks = tuple(wide[(first + number) % len(wide)] for number in range(workers))
    return masks, "all CPUs of a NUMA node"


def _place_reason(share: Share, dealt: Deal) -> str:
    if len(dealt.masks) > 1 or dealt.within:
        return "; ".join(filter(None, (dealt.reason, share.reason)))
    if share.reason:
        return share.reason
    return "all CPUs, no other worker needs them"
