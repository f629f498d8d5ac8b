"""Whom this front end sends tickets to, and who answers: pools, their workers, and what these have claimed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from predictd.server.frontend.calls import Call, held_slots
from predictd.server.frontend.holding import Holding
from predictd.server.frontend.pools import ArenaGrowth, PoolLink, WorkerLink
from predictd.server.frontend.queues import TicketQueues
from predictd.server.transport.arena import Arena
from predictd.server.transport.claims import read_claims


class Links:
    """The pools and workers of which the supervisor told.

    Args:
        frontend: Ours.
        frontends: How many there are.
        growth: Told of memory that is given back.
        holding: How long tickets may be held to leave together.
        refuse: Told of a ticket for which a queue has no room.

    Attributes:
        pools: By id.
        workers: By id.
    """

    def __init__(
        self,
        frontend: int,
        frontends: int,
        growth: ArenaGrowth,
        holding: Holding,
        refuse: Callable[[Call], None],
    ) -> None:
        self._frontend = frontend
        self._frontends = frontends
        self._growth = growth
        self._holding = holding
        self._refuse = refuse
        self.pools: dict[int, PoolLink] = {}
        self.workers: dict[int, WorkerLink] = {}

    def attach_pool(
        self,
        pool: int,
        name: str,
        queue_fds: list[int],
        queue_limit: int,
        arena_limit_bytes: int,
        arena_keep_ns: int,
    ) -> None:
        """Know a pool's queues."""
        queues = TicketQueues(queue_fds, self._refuse, queue_limit, self._frontends, self._holding)
        arena = Arena(f"predictd-requests-{pool}", arena_limit_bytes, arena_keep_ns)
        self.pools[pool] = PoolLink(pool, name, queues, arena)

    def shared(self, lanes: Mapping[int, int]) -> None:
        """Know how many lanes each pool has."""
        for pool in self.pools.values():
            pool.lanes = lanes.get(pool.id, 0)

    def attach_worker(self, worker: WorkerLink) -> None:
        """Know a worker."""
        self.workers[worker.id] = worker
        self.changed(worker.pool)

    def changed(self, pool_id: int) -> None:
        """A worker of a pool came or went."""
        pool = self.pools.get(pool_id)
        if pool is not None:
            pool.changed_ns = time.monotonic_ns()

    def worker(self, worker: int) -> WorkerLink | None:
        """A worker's link, None when it is gone."""
        return self.workers.get(worker)

    @property
    def arena_bytes(self) -> int:
        """Shared memory of all request arenas."""
        return sum(pool.arena.total_bytes for pool in self.pools.values())

    def give_back(self, *, pressed: bool = False) -> None:
        """Do without the memory that requests did not need lately. Called now and then.

        Args:
            pressed: There was none when some was needed: give back whatever can be spared.
        """
        now_ns = time.monotonic_ns()
        for pool in self.pools.values():
            for segment in pool.arena.give_back(now_ns, pressed=pressed):
                self._growth.retired(pool.id, segment)

    def held(self, pool_id: int) -> set[tuple[int, int]]:
        """Tickets of ours that the living workers of a pool have claimed."""
        held: set[tuple[int, int]] = set()
        for link in self.workers.values():
            if link.pool == pool_id:
                held.update(held_slots(read_claims(link.claims)[1], self._frontend))
        return held
