"""The requests in flight of one front end: who waits for what, and what is due after a worker died.

Every request has a slot; a slot's generation goes up each time it is used, so a late answer finds nobody. A block is
freed only when its ticket was completed or found lost, whatever the client was told meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from predictd.server.errors import OverloadedError
from predictd.server.frontend.expectation import Expectation
from predictd.server.frontend.inference import OutputTensor
from predictd.server.frontend.routing import Lane
from predictd.server.frontend.waiting import LaneQueue
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.transport.allocator import Block
from predictd.server.transport.claims import ClaimState
from predictd.server.transport.records import NO_DEADLINE_NS, NO_SEGMENT, TICKET_STRUCT, TicketFlag

_TICKET = struct.Struct(TICKET_STRUCT)
MAX_ATTEMPTS = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back from a worker for a request of so many rows; 1 for a model that does not batch."""

    outputs: list[OutputTensor]
    queue_ns: int
    compute_ns: int
    batch_rows: int
    rows: int


class Receiver(Protocol):
    """Who gets the answer to a call: a future, or what is told of it at once."""

    def done(self) -> bool:
        """Whether it has an answer, or wants none any more."""

    def set_result(self, answered: Answered, /) -> None:
        """Give it the answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Tell it why there is none."""


@dataclass(slots=True, eq=False)
class Call:
    """A request between its ticket and its completion.

    Attributes:
        future: Who gets the answer; None once the client is gone.
        priority: The level of the pool's queue that the ticket is in.
        deadline_ns: The ticket's: the request's own, or when it has waited long enough, whichever is first.
        queued_ns: When the ticket was last written to a queue.
        attempt: How often it was running in a worker that died.
        answer_by_ns: The request's own deadline.
        patience_ns: How long it may wait in its queue, 0 as long as it takes.
        queue: Among whose requests it counts; None once it does no more.
        expectation: Learns from its wait, whether or not the client is there to the end.
        ahead: Requests that were before it when it came.
        timer: Refuses it when it has waited long enough.
    """

    slot: int
    generation: int
    lane: Lane
    block: Block
    wanted: tuple[int, ...]
    future: Receiver | None
    rows: int
    shape_key: int
    flags: int
    size_bytes: int
    priority: int
    enqueued_ns: int
    deadline_ns: int
    queued_ns: int = 0
    attempt: int = 0
    answer_by_ns: int = NO_DEADLINE_NS
    patience_ns: int = 0
    queue: LaneQueue | None = None
    expectation: Expectation | None = None
    ahead: int = 0
    timer: asyncio.TimerHandle | None = None

    def ends_waiting(self) -> None:
        """It counts among those that wait no more, and is not to be refused for its wait."""
        if self.queue is not None:
            self.queue.out -= 1
            self.queue.out_bytes -= self.size_bytes
            self.queue = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def had_its_turn(self) -> None:
        """It was taken from its queue in time, or served its delay: only the request's own deadline counts now."""
        self.deadline_ns = self.answer_by_ns
        self.flags &= ~(TicketFlag.DELAY | TicketFlag.PATIENCE)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def ticket(self, frontend: int) -> bytes:
        """The record that goes into a queue."""
        return _TICKET.pack(
            frontend,
            self.block.segment,
            self.lane.id,
            self.rows,
            self.shape_key,
            self.size_bytes,
            self.priority,
            self.flags,
            self.attempt,
            self.slot,
            self.generation,
            self.block.index,
            self.enqueued_ns,
            self.deadline_ns,
        )


class CallTable:
    """Slots for at most `limit` calls."""

    def __init__(self, limit: int) -> None:
        self._calls: list[Call | None] = [None] * limit
        self._generations = [0] * limit
        self._free = list(range(limit - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._calls) - len(self._free)

    def __iter__(self) -> Iterator[Call]:
        return iter([call for call in self._calls if call is not None])

    def take_slot(self) -> tuple[int, int]:
        """A free slot and the generation to use it with.

        Raises:
            OverloadedError: None is free.
        """
        if not self._free:
            raise too_many(len(self._calls))
        slot = self._free.pop()
        generation = (self._generations[slot] + 1) & 0xFFFFFFFF
        self._generations[slot] = generation
        return slot, generation

    def put(self, call: Call) -> None:
        """Start a call in the slot it took."""
        self._calls[call.slot] = call

    def find(self, slot: int, generation: int) -> Call | None:
        """The call that a record speaks of; None when it is over."""
        call = self._calls[slot] if slot < len(self._calls) else None
        return call if call is not None and call.generation == generation else None

    def end(self, call: Call) -> None:
        """The call is over; its slot is free."""
        self._calls[call.slot] = None
        self._free.append(call.slot)


def too_many(limit: int) -> OverloadedError:
    """Why a request is refused for which there is no slot."""
    return OverloadedError(f"{limit} requests are in flight, which is this front end's limit")


class Recovery(enum.Enum):
    """What happens to a ticket that a dead worker held."""

    PUT_BACK = enum.auto()
    PUT_BACK_ALONE = enum.auto()
    POISON = enum.auto()


def recovery(state: ClaimState, attempt: int) -> Recovery:
    """What is due to a ticket found in a dead worker's claim table.

    A ticket that only waited goes back as it was. One that ran goes back once, to run alone; if it was running again,
    alone, it is what kills workers.
    """
    if state is not ClaimState.RUNNING:
        return Recovery.PUT_BACK
    return Recovery.PUT_BACK_ALONE if attempt < MAX_ATTEMPTS else Recovery.POISON


def held_slots(tickets: bytes, frontend: int) -> list[tuple[int, int]]:
    """(slot, generation) of this front end's tickets in a claim table."""
    return [
        (ticket[9], ticket[10])
        for ticket in _TICKET.iter_unpack(tickets)
        if ticket[0] == frontend and not ticket[7] & TicketFlag.PROBE
    ]


def waiting(
    calls: Iterable[Call], held: Container[tuple[int, int]], now_ns: int
) -> tuple[WaitingSeries, ...]:
    """The calls that no worker holds and whose clients wait, by lane and priority.

    Args:
        calls: In flight.
        held: Slots and generations that workers have claimed.
        now_ns: CLOCK_MONOTONIC.
    """
    since_ns: dict[tuple[int, int], list[int]] = {}
    for call in calls:
        if call.queue is not None and (call.slot, call.generation) not in held:
            since_ns.setdefault((call.lane.id, call.queue.level), []).append(call.enqueued_ns)
    return waiting_series(since_ns, now_ns)


def waiting_series(
    since_ns: Mapping[tuple[int, int], Sequence[int]], now_ns: int
) -> tuple[WaitingSeries, ...]:
    """Since when requests wait, by lane and priority, as series."""
    return tuple(WaitingSeries(*key, len(times), now_ns - min(times)) for key, times in since_ns.items())


def probe_ticket(frontend: int, number: int, priority: int, now_ns: int) -> bytes:
    """A record that comes back once all older tickets of its queue were taken. `number` stands in its slot."""
    flags = int(TicketFlag.PROBE)
    return _TICKET.pack(
        frontend, NO_SEGMENT, 0, 0, 0, 0, priority, flags, 0, number, 0, 0, now_ns, NO_DEADLINE_NS
    )
