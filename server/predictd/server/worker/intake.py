"""The leader's part: read tickets, plan a batch, claim it, put the rest into the carry.

Only the holder of the leader token calls this. Whatever it read is afterwards in its claim table, in the carry, or
completed; a worker that dies in between loses tickets that their front ends find again by a probe.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from predictd.server.transport.claims import CLAIMS_CAPACITY, ClaimWriter
from predictd.server.transport.records import RECORD_BYTES, TICKET, Records, Status
from predictd.server.worker.planning import BatchPlan, LaneRules, plan_batch
from predictd.server.worker.request_memory import FrontendMemory

# Tickets that are looked at together when the head of the queue is not one homogeneous batch. The carry holds at
# least 1,024, so leftovers always fit into it.
WINDOW_TICKETS = 256
_EMPTY: Records = np.empty(0, TICKET)


class Dropper(Protocol):
    """Completes tickets without a run."""

    def __call__(self, tickets: Records, status: Status, now_ns: int) -> None: ...


class Intake:
    """Queues of a pool as its leader sees them."""

    def __init__(
        self,
        queue_fds: list[int],
        carry_fds: tuple[int, int],
        wake_fd: int,
        memory: FrontendMemory,
        claims: ClaimWriter,
        drop: Dropper,
    ) -> None:
        self._queue_fds = queue_fds
        self._carry_read_fd, self._carry_write_fd = carry_fds
        self._memory = memory
        self._claims = claims
        self._drop = drop
        self._poll = select.epoll()
        for fd in (*queue_fds, wake_fd):
            self._poll.register(fd, select.EPOLLIN)
        self._wake_fd = wake_fd

    def next_batch(
        self,
        rules: Mapping[int, LaneRules],
        spent_ns: Mapping[int, int],
        keep_house: Callable[[], bool],
    ) -> Records:
        """Wait for tickets and claim a batch of them.

        Args:
            rules: Of every lane that this worker serves.
            spent_ns: Compute time of each lane so far.
            keep_house: Called between decisions; false when the worker shall stop.

        Returns:
            The claimed tickets; empty when the worker shall stop.
        """
        window = self._read_carry()
        while keep_house():
            window = self._read_queues(window, rules)
            if not len(window):
                self._wait(None)
                continue
            now_ns = time.monotonic_ns()
            known = self._drop_unknown_lanes(window, rules, now_ns)
            plan = plan_batch(known, self._memory.cancelled(known), now_ns, rules, spent_ns)
            batch, window = self._carry_out(known, plan, now_ns)
            if len(batch):
                return batch
            if plan.wait_until_ns:
                self._wait(plan.wait_until_ns - time.monotonic_ns())
        self._put_back(window)
        return _EMPTY

    def _carry_out(self, window: Records, plan: BatchPlan, now_ns: int) -> tuple[Records, Records]:
        """Complete what is dropped, claim the batch, and keep or put back the rest: (batch, still in hand)."""
        if len(plan.expired):
            self._drop(window[plan.expired], Status.EXPIRED, now_ns)
        if len(plan.cancelled):
            self._drop(window[plan.cancelled], Status.CANCELLED, now_ns)
        batch, rest = window[plan.take], window[plan.leave]
        if len(batch):
            self._claims.hold(batch.tobytes())
            self._put_back(rest)
            rest = _EMPTY
        if len(plan.probes):
            # After the claims: who sees the probe back must find there what was taken before it.
            self._drop(window[plan.probes], Status.PROBE, now_ns)
        return batch, rest

    def _drop_unknown_lanes(self, window: Records, rules: Mapping[int, LaneRules], now_ns: int) -> Records:
        """A ticket of a lane that this worker does not serve is answered, never left to block the others."""
        lanes = window["lane"]
        if (lanes == lanes[0]).all() and int(lanes[0]) in rules:
            return window
        unknown = ~np.isin(lanes, list(rules)) & ((window["flags"] & 2) == 0)
        if not unknown.any():
            return window
        self._drop(window[unknown], Status.UNKNOWN_LANE, now_ns)
        known: Records = window[~unknown]
        return known

    def _read_carry(self) -> Records:
        return self._read(self._carry_read_fd, 1024)

    def _read_queues(self, window: Records, rules: Mapping[int, LaneRules]) -> Records:
        """Top the window up: to one full batch while the pool has one lane, else to WINDOW_TICKETS."""
        limit = WINDOW_TICKETS
        if len(rules) == 1 and not len(window):
            limit = min(next(iter(rules.values())).max_batch_size, CLAIMS_CAPACITY)
        for fd in self._queue_fds:
            missing = limit - len(window)
            if missing <= 0:
                break
            more = self._read(fd, missing)
            if len(more):
                window = more if not len(window) else np.concatenate((window, more))
        return window

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
        data = memoryview(window.tobytes())
        while data:
            # The token holder alone reads and writes the carry, and it was empty when this window was read.
            data = data[os.write(self._carry_write_fd, data) :]

    def _wait(self, timeout_ns: int | None) -> None:
        """Wait until a queue has tickets, the worker is woken, or the time is over."""
        timeout_seconds = None if timeout_ns is None else max(timeout_ns, 0) / 1e9
        for fd, _ in self._poll.poll(timeout_seconds):
            if fd == self._wake_fd:
                os.read(fd, 8)
