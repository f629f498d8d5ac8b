"""Whether a queue has room for one more request of a lane, by what this front end knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from predictd.server.frontend.calls import Call
from predictd.server.frontend.failures import crowded, full, too_heavy
from predictd.server.frontend.pools import PoolLink
from predictd.server.frontend.routing import Lane
from predictd.server.frontend.waiting import LaneQueue


def check_room(
    lane: Lane,
    pool: PoolLink,
    queue: LaneQueue,
    ahead: int,
    size_bytes: int,
    taken: Callable[[], Iterable[Call]],
) -> None:
    """See whether a queue takes one more request.

    Args:
        lane: Of the request.
        pool: Of the lane.
        queue: Of the lane, for the request's priority.
        ahead: Requests before it, those that run included.
        size_bytes: Of its block.
        taken: Tells which requests workers have claimed; asked only where it may matter.

    Raises:
        OverloadedError: It does not.
    """
    rules = queue.rules
    # A limit that is the pool's own is kept by the pipe, for all front ends together.
    many = queue.out >= rules.max_queue_size < pool.queues.limit
    heavy = bool(rules.max_queue_bytes) and queue.out_bytes + size_bytes > rules.max_queue_bytes
    # What is ahead is no less than what waits.
    crowds = pool.lanes > 1 and 0 < queue.out >= pool.queues.limit - ahead
    if not many and not heavy and not crowds:
        return
    wait_ns = queue.expectation.wait_ns(ahead, time.monotonic_ns())
    with_workers = list(taken())
    requests, waiting_bytes = waiting(queue, with_workers)
    if many and requests >= rules.max_queue_size:
        raise full(lane, wait_ns)
    if heavy and waiting_bytes + size_bytes > rules.max_queue_bytes:
        raise too_heavy(lane, size_bytes, wait_ns)
    if crowds and leaves_too_little(queue, pool, with_workers):
        raise crowded(lane, pool.name, wait_ns)


def waiting(queue: LaneQueue, taken: Iterable[Call]) -> tuple[int, int]:
    """Requests of a lane's queue that no worker has taken, and their bytes.

    Args:
        queue: Of the lane.
        taken: Requests that workers have claimed.
    """
    own = [call for call in taken if call.queue is queue]
    return queue.out - len(own), queue.out_bytes - sum(call.size_bytes for call in own)


def leaves_too_little(queue: LaneQueue, pool: PoolLink, taken: Sequence[Call]) -> bool:
    """Whether one lane has as much of a pool's queue as is free for all others.

    One that is flooded so comes to a half, two to a third each, and whoever asks seldom finds room.

    Args:
        queue: Of the lane.
        pool: That has several lanes.
        taken: Requests that workers have claimed.
    """
    own, _ = waiting(queue, taken)
    level = min(queue.level, pool.queues.levels)
    ours = pool.out[level] - sum(call.priority == level for call in taken)
    return 0 < own >= pool.queues.limit - max(ours, pool.queues.depth(level))
