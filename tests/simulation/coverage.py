"""What the schedules reached: which trouble in which situation, and how far requests were that it befell."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from predictd.server.frontend.calls import Call, held_slots
from predictd.server.supervise.states import State
from predictd.server.transport.claims import ClaimState, read_claims
from tests.simulation.frontend_process import FrontendProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

# How far a request was that has a ticket.
UNSENT, QUEUED, CLAIMED, RUNNING = STAGES = ("unsent", "queued or answered", "claimed", "running")


class Coverage:
    """Counts.

    Attributes:
        counts: How often what happened.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.counts: Counter[str] = Counter()

    def strikes(self, trouble: str) -> None:
        """Something goes wrong, or a drain begins."""
        self.counts[trouble] += 1
        self.counts.update(f"{trouble} during a {situation}" for situation in self._situations())

    def _situations(self) -> list[str]:
        supervisor = self._world.supervisor
        pools = supervisor._workers.pools.values()
        states = {record.state for record in supervisor.catalog.records()}
        dead = any(not child.process.alive for child in self._world.children)
        lost = dead or any(place.state is State.BACKOFF for pool in pools for place in pool.places)
        found = {"swap": states & {"LOADING", "UNLOADING"}, "death": lost, "drain": self._world.leaving}
        return [situation for situation, so in found.items() if so]

    def client_leaves(self, door: FrontendProcess, number: int) -> None:
        """A client cancels."""
        calls = [call for call in _calls(door) if door.number(call.slot, call.generation) == number]
        self.counts[f"cancelled {self._stage(door, calls[0]) if calls else 'without a ticket'}"] += 1

    def door_dies(self, door: FrontendProcess) -> None:
        """A front end dies, with all its tickets."""
        self.counts.update(
            {f"front end dies with a ticket {self._stage(door, call)}" for call in _calls(door)}
        )

    def ends(self) -> None:
        """The schedule is over."""
        for (role, reason), kills in self._world.supervisor._watch.kills.items():
            self.counts[f"{role} killed: {reason}"] += kills

    def _stage(self, door: FrontendProcess, call: Call) -> str:
        for process in self._world.workers():
            if process.worker is None:
                continue
            state, tickets = read_claims(process.worker._claims._map)
            if (call.slot, call.generation) in held_slots(tickets, door.id):
                return RUNNING if state is ClaimState.RUNNING else CLAIMED
        assert door.frontend is not None
        pool = door.frontend._dispatcher._pools[call.lane.pool]
        unsent = [entry for waiting in pool.queues._waiting for _, entry in waiting]
        return UNSENT if call in unsent else QUEUED


def _calls(door: FrontendProcess) -> list[Call]:
    return [] if door.frontend is None else list(door.frontend._dispatcher._calls)
