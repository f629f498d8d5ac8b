"""The leader's part: read tickets, plan a batch, claim it, put the rest into the carry.

Only the holder of the leader token calls this. Whatever it read is afterwards in its claim table, in the carry, or
completed; a worker that dies in between loses tickets that their front ends find again by a probe.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from predictd.server.transport import pipes
from predictd.server.transport.claims import CLAIMS_CAPACITY, ClaimWriter
from predictd.server.transport.records import RECORD_BYTES, TICKET, Records, Status, Ticket
from predictd.server.worker.batch import Batch, batch_of, lone_batch
from predictd.server.worker.lone import runs_now
from predictd.server.worker.planning import BatchPlan, LaneRules, Shares, plan_batch
from predictd.server.worker.request_memory import ForgedTicketError, FrontendMemory
from predictd.server.worker.waiting import TicketWait

# Tickets that are looked at together when the head of the queue is not one homogeneous batch.
WINDOW_TICKETS = 256
_EMPTY: Records = np.empty(0, TICKET)

_log = logging.getLogger(__name__)


class Dropper(Protocol):
    """Completes tickets without a run."""

    def __call__(self, tickets: Records, status: Status, now_ns: int, *, hopeless: bool = False) -> None: ...


class Intake:
    """Queues of a pool as its leader sees them.

    Args:
        queue_fds: Read ends by level.
        carry_fds: Both ends of the carry.
        wake_fd: Readable when there is something to do besides.
        memory: What tickets name.
        claims: What this worker holds.
        drop: Completes tickets without a run.
        alone: No other worker of the pool leads.
    """

    def __init__(
        self,
        queue_fds: list[int],
        carry_fds: tuple[int, int],
        wake_fd: int,
        memory: FrontendMemory,
        claims: ClaimWriter,
        drop: Dropper,
        *,
        alone: bool = False,
    ) -> None:
        self._alone = alone
        self._carried = True
        self._queue_fds = queue_fds
        self._carry_read_fd, self._carry_write_fd = carry_fds
        # Nothing is read that could not be claimed, or put back: leftovers have to fit into the carry.
        self._room = min(CLAIMS_CAPACITY, pipes.capacity(self._carry_write_fd))
        self._memory = memory
        self._claims = claims
        self._drop = drop
        self._wait = TicketWait((*queue_fds, wake_fd), time.monotonic_ns)
        self._wake_fd = wake_fd

    def next_batch(
        self,
        rules: Mapping[int, LaneRules],
        shares: Shares,
        keep_house: Callable[[], bool],
        *,
        awake: bool = False,
    ) -> Batch | None:
        """Wait for tickets and claim a batch of them.

        Args:
            rules: Of every lane that this worker serves.
            shares: Compute time of each lane so far.
            keep_house: Called between decisions; false when the worker shall stop.
            awake: Tickets came one by one, and may be waited for awake.

        Returns:
            The claimed tickets; None when the worker shall stop.
        """
        window = _EMPTY
        if self._carried:
            window = self._read(self._carry_read_fd, self._room)
            # The only worker of a pool knows what it has put back.
            self._carried = not self._alone
        wait_seconds = 0.0 if len(window) else None
        while keep_house():
            window = self._read_queues(window, rules, wait_seconds, awake=awake)
            wait_seconds = None
            if not len(window):
                continue
            now_ns = time.monotonic_ns()
            if len(window) == 1 and (batch := self._claim_lone(window, rules, now_ns)) is not None:
                return batch
            try:
                cancelled = self._memory.cancelled(window)
            except ForgedTicketError:
                window = self._drop_forged(window, now_ns)
                wait_seconds = 0.0 if len(window) else None
                continue
            room = len(window) < self._window_limit(rules, window)
            plan = plan_batch(window, cancelled, now_ns, rules, shares, room=room)
            batch, window = self._carry_out(window, plan, now_ns)
            if batch is not None:
                return batch
            if plan.wait_until_ns:
                wait_seconds = max(plan.wait_until_ns - time.monotonic_ns(), 0) / 1e9
        self._put_back(window)
        return None

    def _claim_lone(self, window: Records, rules: Mapping[int, LaneRules], now_ns: int) -> Batch | None:
        """Claim the only ticket in hand, if it is a batch. If not, the rules in full say what becomes of it."""
        record = window.tobytes()
        lone = Ticket.unpack(record)
        if not self._memory.is_wanted(lone) or not runs_now(lone, rules.get(lone.lane), now_ns):
            return None
        self._claims.hold(record)
        return lone_batch(window, lone)

    def _carry_out(self, window: Records, plan: BatchPlan, now_ns: int) -> tuple[Batch | None, Records]:
        """Complete what is dropped, claim the batch, put back the rest: (batch, what stays in hand)."""
        tickets, rest = window[plan.take], window[plan.leave]
        drops = plan.drops
        if drops is not None:
            self._drop_some(window[drops.expired], Status.EXPIRED, now_ns)
            if len(drops.hopeless):
                self._drop(window[drops.hopeless], Status.EXPIRED, now_ns, hopeless=True)
            self._drop_some(window[drops.cancelled], Status.CANCELLED, now_ns)
            self._drop_some(window[drops.unknown], Status.UNKNOWN_LANE, now_ns)
        batch = None
        if len(tickets):
            self._claims.hold(tickets.tobytes())
            self._put_back(rest)
            batch, rest = batch_of(tickets, uniform=plan.uniform), _EMPTY
        if drops is not None:
            # After the claims: who sees the probe back must find there what was taken before it.
            self._drop_some(window[drops.probes], Status.PROBE, now_ns)
        return batch, rest

    def _drop_forged(self, window: Records, now_ns: int) -> Records:
        """Fail tickets that name memory that is not there. Returns the others."""
        forged = self._memory.forged(window)
        for frontend in np.unique(window["frontend"][forged]):
            _log.error(
                "front end %d sends tickets for memory that it does not have. This is a bug.", frontend
            )
        self._drop(window[forged], Status.ENGINE_FAILED, now_ns)
        return window[~forged]

    def _drop_some(self, tickets: Records, status: Status, now_ns: int) -> None:
        if len(tickets):
            self._drop(tickets, status, now_ns)

    def _read_queues(
        self, window: Records, rules: Mapping[int, LaneRules], wait_seconds: float | None, *, awake: bool
    ) -> Records:
        """Wait for tickets and top the window up.

        Args:
            window: What is in hand.
            rules: Of every lane.
            wait_seconds: How long to wait at most; None waits until something comes.
            awake: As for `next_batch`.
        """
        limit = self._window_limit(rules, window)
        ready = self._wait.until_ready(wait_seconds, awake=awake)
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        for fd in self._queue_fds:
            missing = limit - len(window)
            if fd in ready and missing > 0:
                more = self._read(fd, missing)
                window = np.concatenate((window, more)) if len(window) else more
        return window

    def _window_limit(self, rules: Mapping[int, LaneRules], window: Records) -> int:
        """Tickets to have in hand: one batch while the pool has one lane and nothing was left over.

        Lanes take turns among the tickets in hand alone: where there are several, all that wait are read, or one lane
        would be served once the queue of another is done.
        For a preferred size that can be had no ticket must be missing, because others turned out to be expired.
        """
        limit = self._room
        if len(rules) == 1:
            lane = next(iter(rules.values()))
            batch = lane.max_batch_size if lane.batches else 1
            limit = max(batch, WINDOW_TICKETS) if len(window) or lane.preferred else batch
        return min(limit, self._room)

    @staticmethod
    def _read(fd: int, count: int) -> Records:
        try:
            data = os.read(fd, count * RECORD_BYTES)
        except BlockingIOError:
            return _EMPTY
        return np.frombuffer(data, TICKET)

    def _put_back(self, window: Records) -> None:
        if not len(window):
            return
        self._carried = True
        data = memoryview(window.tobytes())
        while data:
            # The token holder alone reads and writes the carry, and it was empty when this window was read.
            data = data[os.write(self._carry_write_fd, data) :]
