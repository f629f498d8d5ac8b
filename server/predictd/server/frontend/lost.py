"""Tickets that died with a worker between a read and a claim, found by probes.

After a death a probe goes through every queue of the pool. When it comes back, whatever stood before it was read by a
living worker: an older ticket that none of these claims and that is not completed was lost, and is put back.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable
from dataclasses import dataclass

from predictd.server.frontend.calls import Call, probe_ticket
from predictd.server.frontend.pools import PoolLink


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe on its way through a queue."""

    pool: int
    level: int
    sent_ns: int

    def lost(self, calls: Iterable[Call], held: Container[tuple[int, int]]) -> list[Call]:
        """Calls whose tickets are older than the probe and not with a living worker, now that it is back.

        Args:
            calls: In flight.
            held: Slots and generations that the living workers have claimed.
        """
        return [
            call
            for call in calls
            if call.lane.pool == self.pool
            and call.priority == self.level
            and call.queued_ns < self.sent_ns
            and (call.slot, call.generation) not in held
        ]


class Probes:
    """The probes that are out.

    Args:
        frontend: Our id.
    """

    def __init__(self, frontend: int) -> None:
        self._frontend = frontend
        self._out: dict[int, Probe] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._out)

    def send(self, pool: PoolLink) -> None:
        """A worker of this pool died."""
        now_ns = time.monotonic_ns()
        # Those still out were sent before: these find what they would have found, or were lost with the worker.
        self._out = {number: probe for number, probe in self._out.items() if probe.pool != pool.id}
        for level in range(1, pool.queues.levels + 1):
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._out[self._number] = Probe(pool.id, level, now_ns)
            pool.queues.put_probe(probe_ticket(self._frontend, self._number, level, now_ns), level)

    def take(self, number: int) -> Probe | None:
        """The probe that came back; None if others were sent since."""
        return self._out.pop(number, None)
