"""How much of a pool's queue its lanes have, by what this front end knows."""

from __future__ import annotations

from collections.abc import Iterable

from predictd.server.frontend.calls import Call
from predictd.server.frontend.pools import PoolLink
from predictd.server.frontend.waiting import LaneQueue


def waiting(queue: LaneQueue, taken: Iterable[Call]) -> tuple[int, int]:
    """Requests of a lane's queue that no worker has taken, and their bytes.

    Args:
        queue: Of the lane.
        taken: Requests that workers have claimed.
    """
    own = [call for call in taken if call.queue is queue]
    return queue.out - len(own), queue.out_bytes - sum(call.size_bytes for call in own)


def leaves_too_little(queue: LaneQueue, pool: PoolLink, taken: Iterable[Call]) -> bool:
    """Whether one lane has as much of a pool's queue as is free for all others.

    One that is flooded so comes to a half, two to a third each, and whoever asks seldom finds room.

    Args:
        queue: Of the lane.
        pool: That has several lanes.
        taken: Requests that workers have claimed.
    """
    taken = list(taken)
    own, _ = waiting(queue, taken)
    level = min(queue.level, pool.queues.levels)
    ours = pool.out[level] - sum(call.priority == level for call in taken)
    return 0 < own >= pool.queues.limit - max(ours, pool.queues.depth(level))
