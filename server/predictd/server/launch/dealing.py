"""Dealing cores out to workers: near their memory, then on whole cores, then behind one cache.

Cores come in groups: those behind one cache, those of one NUMA node, those of the machine. Workers of a pool are
identical, so each gets as many as the others; a deal asks how many that can be when no worker may leave its group,
and serves the emptiest node first, so that all nodes' memory is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from predictd.server.launch.requests import count
from predictd.server.launch.topology import Core, Topology

# What a worker may lose of its cores to stay behind one cache.
_CACHE_COSTS_AT_MOST = 1 / 4
# Of the cores: what is left over serves the front ends, and more workers would be smaller ones.
_NEARLY_ALL = 4 / 5

Group = tuple[Core, ...]
"""Units that are dealt: whole cores, or single CPUs as cores of one."""

Nodes = tuple[tuple[Group, ...], ...]
"""For each NUMA node its groups."""


@dataclass(frozen=True, slots=True)
class Deal:
    """One mask for each worker.

    Attributes:
        masks: Ascending each, along the machine.
        size: Units of each worker.
        unit: What they are.
        within: What no worker leaves; empty where that is all there is.
    """

    masks: tuple[tuple[int, ...], ...]
    size: int
    unit: str
    within: str

    @property
    def reason(self) -> str:
        """What each worker got."""
        each = f"{count(self.size, self.unit)} for each worker"
        if len(self.masks) == 1:
            each = count(self.size, self.unit)
        return f"{each}, {self.within}" if self.within else each


def deal(
    topology: Topology, cores: Sequence[Core], workers: int, threads: int | None, *, spanning: bool
) -> Deal | None:
    """Give each worker CPUs of its own.

    Args:
        topology: Says which cores are near each other.
        cores: To deal, at least one.
        workers: How many.
        threads: What each must have room for; None takes whole cores, as many as there are, at least one CPU.
        spanning: Workers that are fewer than the NUMA nodes take several nodes each, unless `threads` says what
            they need.

    Returns:
        None where they do not fit side by side.
    """
    nodes = topology.by_node(cores)
    if spanning and threads is None and workers < len(nodes):
        nodes = _merged(nodes, len(nodes) // workers)
    each = -(-workers // len(nodes))
    whole = _levels(topology, nodes, "whole core")
    single = _levels(topology, [_single_cpus(node, each) for node in nodes], "CPU")
    for levels in (whole, single):
        best = _best(levels, workers, threads or 1, prefer_large=threads is None)
        if best is not None:
            return best
    return None


@dataclass(frozen=True, slots=True)
class _Level:
    """Groups that no worker may leave."""

    nodes: Nodes
    unit: str
    within: str = ""
    optional: bool = False

    @property
    def largest(self) -> int:
        """Units of the largest group."""
        return max(len(group) for node in self.nodes for group in node)

    def share(self, workers: int) -> int:
        """The most that each worker can have; 0 where they do not fit."""
        sizes = [len(group) for node in self.nodes for group in node]
        candidates = range(self.largest, 0, -1)
        return next((size for size in candidates if sum(n // size for n in sizes) >= workers), 0)


def workers_for(nodes: Sequence[Group]) -> int:
    """As few workers as use nearly all cores, though none leaves its NUMA node: one a node where nodes are alike."""
    level = _Level(tuple((node,) for node in nodes), "")
    total = sum(map(len, nodes))
    used = {workers: workers * level.share(workers) for workers in range(1, 2 * len(nodes) + 1)}
    enough = (workers for workers, cores in used.items() if cores >= total * _NEARLY_ALL)
    return next(enough, max(used, key=lambda workers: (used[workers], -workers)))


def _merged(nodes: Sequence[Group], each: int) -> tuple[Group, ...]:
    """Neighbouring nodes as one, so that every core has work when there are fewer workers than nodes."""
    starts = range(0, len(nodes) - each + 1, each)
    return tuple(tuple(itertools.chain(*nodes[start : start + each])) for start in starts)


def _levels(topology: Topology, nodes: Sequence[Group], unit: str) -> tuple[_Level, ...]:
    """From the narrowest to the whole machine; levels that are no narrower than the next one are left out."""
    everything = _Level(((tuple(itertools.chain(*nodes)),),), unit)
    # A merged node has several node numbers.
    plain = all(len(topology.by_node(node)) == 1 for node in nodes)
    caches = tuple(topology.by_cache(node) for node in nodes) if plain else ()
    levels = [everything]
    if len(nodes) > 1:
        levels.insert(0, _Level(tuple((node,) for node in nodes), unit, "within one NUMA node"))
    if any(len(groups) > 1 for groups in caches):
        levels.insert(0, _Level(caches, unit, "behind one L3 cache", optional=True))
    return tuple(levels)


def _best(levels: Sequence[_Level], workers: int, threads: int, *, prefer_large: bool) -> Deal | None:
    shares = [level.share(workers) for level in levels]
    for number, (level, share) in enumerate(zip(levels, shares, strict=True)):
        if share < threads:
            continue
        wider = shares[number + 1] if number + 1 < len(levels) else 0
        if prefer_large and level.optional and share < wider * (1 - _CACHE_COSTS_AT_MOST):
            continue
        return Deal(_dealt(level.nodes, share, workers), share, level.unit, level.within)
    return None


def _dealt(nodes: Nodes, size: int, workers: int) -> tuple[tuple[int, ...], ...]:
    """Serve the emptiest node first, and in it the emptiest group."""
    room = [[len(group) // size for group in node] for node in nodes]
    taken: list[tuple[int, int, int]] = []
    for _ in range(workers):
        node = max(range(len(nodes)), key=lambda number: (sum(room[number]), -number))
        group = max(range(len(room[node])), key=lambda number: (room[node][number], -number))
        taken.append((node, group, len(nodes[node][group]) // size - room[node][group]))
        room[node][group] -= 1
    masks: list[tuple[int, ...]] = []
    for node, group, place in sorted(taken):
        units = nodes[node][group][place * size : (place + 1) * size]
        masks.append(tuple(sorted(itertools.chain(*units))))
    return tuple(masks)


def _single_cpus(cores: Iterable[Core], workers: int) -> Group:
    """Each CPU alone, in the order in which the workers take them."""
    whole = tuple(cores)
    by_core = tuple((cpu,) for core in whole for cpu in core)
    if len(by_core) // workers > 1:
        # Siblings next to each other: as few cores as possible are cut in two.
        return by_core
    # One CPU for each worker: no core gets a second one before every core has one.
    rounds = itertools.zip_longest(*whole)
    return tuple((cpu,) for round_ in rounds for cpu in round_ if cpu is not None)
