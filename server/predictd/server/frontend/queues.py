"""The write ends of a pool's queues. Tickets of one turn of the event loop leave in as few writes as there can be.

A write wakes a worker, which costs more than the rest of a small request; and a worker that finds several tickets
forms a batch of them. While the front end has no time to spare, tickets wait a moment for others: see holding.py.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from predictd.server.frontend.calls import Call
from predictd.server.frontend.holding import Holding
from predictd.server.transport.pipes import capacity, depth
from predictd.server.transport.records import RECORDS_PER_WRITE

# How soon a full queue is tried again for tickets that were accepted before.
TRY_AGAIN_SECONDS = 0.005
# Those of one level that wait for no more: what is written at once.
TICKETS_HELD_MAX = RECORDS_PER_WRITE

_Entry = tuple[bytes, Call | None]


class TicketQueues:
    """One pipe a priority level; level 1 is served first, and the last one after all others.

    Args:
        fds: Write ends by level.
        refuse: Called with a request whose queue is full.
        limit: Tickets that may wait in a level. A pipe holds at least 64, so a smaller limit is kept by looking at the
            depth; the pipe itself bounds the larger ones.
        frontends: That write into the same queues.
        holding: How long tickets wait for others.

    Attributes:
        limit: The same.
        frontends: The same.
        counted: The limit is kept by looking at the depth.
    """

    def __init__(
        self, fds: list[int], refuse: Callable[[Call], None], limit: int, frontends: int, holding: Holding
    ) -> None:
        self._fds = fds
        self._refuse = refuse
        self.limit = limit
        self.frontends = frontends
        self.counted = bool(fds) and limit < capacity(fds[0])
        self._waiting: list[deque[_Entry]] = [deque() for _ in fds]
        self._probes = [0] * len(fds)
        self._scheduled = False
        self._holding = holding
        self._loop = asyncio.get_running_loop()
        self._first_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def levels(self) -> int:
        """Priority levels."""
        return len(self._fds)

    def waiting(self, level: int) -> int:
        """Tickets that wait in a level and in those that are served before it, of all front ends."""
        return sum(map(depth, self._fds[:level])) + sum(map(len, self._waiting[:level]))

    def depth(self, level: int) -> int:
        """Tickets that wait in a level, of all front ends."""
        return depth(self._fds[level - 1]) + len(self._waiting[level - 1])

    def put(self, ticket: bytes, level: int, call: Call | None = None, *, at_once: bool = False) -> None:
        """Send a ticket at the end of this turn of the event loop, or a moment later.

        Args:
            ticket: The record.
            level: Of the queue.
            call: The request, to be refused if the queue is full. Without it the ticket waits for room: it is a probe,
                or was accepted before.
            at_once: Send it now: there are so few requests that none can be expected to join it.
        """
        waiting = self._waiting[level - 1]
        waiting.append((ticket, call))
        now_ns = time.monotonic_ns()
        self._holding.look(now_ns)
        held_ns = self._holding.held_ns
        if self._timer is not None:
            # The timer is for when no more tickets come: it is coarse, and the loop may be late.
            if now_ns - self._first_ns >= held_ns or len(waiting) >= TICKETS_HELD_MAX:
                self._flush()
        elif self._scheduled:
            # It leaves with those before it.
            pass
        elif held_ns:
            self._scheduled = True
            self._first_ns = now_ns
            self._timer = self._loop.call_later(held_ns / 1e9, self._flush)
        elif at_once:
            self._flush()
        else:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def put_probe(self, ticket: bytes, level: int) -> None:
        """Send a probe, which takes no room from requests."""
        self._probes[level - 1] += 1
        self.put(ticket, level)

    def probes_back(self, level: int) -> None:
        """The last probe of a level came back: those before it did, or are lost."""
        self._probes[level - 1] = 0

    def _flush(self) -> None:
        self._scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for fd, waiting, probes in zip(self._fds, self._waiting, self._probes, strict=True):
            if self.counted and waiting:
                # While probes of ours are out, the other front ends have as many in the queue.
                self._refuse_after(waiting, self.limit + probes * self.frontends - depth(fd))
            while waiting and _write_some(fd, waiting):
                pass
            self._refuse_after(waiting, 0)
        if any(self._waiting) and not self._scheduled:
            self._scheduled = True
            self._loop.call_later(TRY_AGAIN_SECONDS, self._flush)

    def _refuse_after(self, waiting: deque[_Entry], room: int) -> None:
        """Refuse the requests for which there is no room; what was accepted before stays."""
        if len(waiting) <= room:
            return
        entries = list(waiting)
        waiting.clear()
        for at, (ticket, call) in enumerate(entries):
            if call is None or at < room:
                waiting.append((ticket, call))
            else:
                self._refuse(call)

    def close(self) -> None:
        """The pool is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._waiting:
            waiting.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self._waiting = []
        self._probes = []


def _write_some(fd: int, waiting: deque[_Entry]) -> bool:
    """Write as many tickets as a pipe takes whole, or the first alone where these do not fit. False: not even that."""
    for count in (min(len(waiting), RECORDS_PER_WRITE), 1):
        try:
            os.write(fd, b"".join([ticket for ticket, _ in islice(waiting, count)]))
        except BlockingIOError:
            continue
        except BrokenPipeError:
            # The pool is gone, as PoolGone is about to tell: that fails everything which waits in it.
            waiting.clear()
            return False
        for _ in range(count):
            waiting.popleft()
        return True
    return False
