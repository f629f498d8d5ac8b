"""The claim table: the tickets that a worker holds now, readable after its death.

The worker is its only writer. It writes the tickets, then their number; it clears the number after the completions
were written to their pipes. A reader acts on it only once the writer is dead, or to find tickets that were claimed
before a system call it has seen the result of; so no lock and no atomic is needed.

Its header also has what the supervisor judges by whether the worker hangs: how often the run loop has come round, and
since when it has been at work on one thing.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from typing import NamedTuple

from predictd.server.transport.memory import create_shared

CLAIMS_CAPACITY = 4096
CLAIMS_HEADER_BYTES = 64
CLAIMS_BYTES = CLAIMS_HEADER_BYTES + CLAIMS_CAPACITY * 64
_HEADER = struct.Struct("<IIII")
_TURNS_AT = 16
_BUSY_AT = 24
_U64 = struct.Struct("<Q")
_PULSE = struct.Struct("<QQ")
_TICKET_HEAD = struct.Struct("<IIII")


class ClaimState(enum.IntEnum):
    """What the worker does with the tickets that it holds."""

    IDLE = 0
    WAITING = 1
    RUNNING = 2


class Pulse(NamedTuple):
    """What a worker's run loop says of itself.

    Attributes:
        turns: How often it has come round.
        busy_since_ns: When it began what it is at work on, a run or the closing of an engine; 0 while on nothing.
    """

    turns: int
    busy_since_ns: int


class ClaimWriter:
    """The worker's own table."""

    def __init__(self) -> None:
        self.fd, self._map = create_shared("predictd-claims", CLAIMS_BYTES)
        self._batches = 0
        self._turns = 0
        self._write(0, ClaimState.IDLE)

    def turn(self) -> None:
        """The run loop has come round."""
        self._turns += 1
        _U64.pack_into(self._map, _TURNS_AT, self._turns)

    def busy(self) -> None:
        """The run loop begins something that takes as long as it takes: only the time for a run limits it."""
        _U64.pack_into(self._map, _BUSY_AT, time.monotonic_ns())

    def done(self) -> None:
        """It is finished with that."""
        _U64.pack_into(self._map, _BUSY_AT, 0)

    def hold(self, tickets: bytes) -> None:
        """Claim encoded tickets, at most CLAIMS_CAPACITY."""
        self._map[CLAIMS_HEADER_BYTES : CLAIMS_HEADER_BYTES + len(tickets)] = tickets
        self._write(len(tickets) // 64, ClaimState.WAITING)

    def start(self) -> None:
        """The engine is about to run what is held."""
        self._map[8] = ClaimState.RUNNING
        self.busy()

    def clear(self) -> None:
        """Everything held was completed."""
        self._batches = (self._batches + 1) & 0xFFFFFFFF
        self._write(0, ClaimState.IDLE)
        self.done()

    def _write(self, count: int, state: ClaimState) -> None:
        self._map[:16] = _HEADER.pack(count, 0, state, self._batches)


def read_claims(table: mmap.mmap) -> tuple[ClaimState, bytes]:
    """The state of a table and its encoded tickets.

    What a broken engine wrote over it is read as the state that calls for most care: RUNNING.
    """
    count, _, state, _ = _HEADER.unpack_from(table)
    end = CLAIMS_HEADER_BYTES + min(count, CLAIMS_CAPACITY) * 64
    known = state in (ClaimState.IDLE, ClaimState.WAITING)
    return ClaimState(state) if known else ClaimState.RUNNING, table[CLAIMS_HEADER_BYTES:end]


def claimed_tickets(table: mmap.mmap) -> int:
    """How many tickets the worker holds."""
    return min(int(_HEADER.unpack_from(table)[0]), CLAIMS_CAPACITY)


def completed_batches(table: mmap.mmap) -> int:
    """How many batches the worker has completed in its life."""
    return int(_HEADER.unpack_from(table)[3])


def read_pulse(table: mmap.mmap) -> Pulse:
    """What the worker's run loop says of itself."""
    return Pulse(*_PULSE.unpack_from(table, _TURNS_AT))


def claimed_lanes(table: mmap.mmap) -> set[int]:
    """The lanes whose tickets a dead worker was running."""
    state, tickets = read_claims(table)
    if state is not ClaimState.RUNNING:
        return set()
    return {_TICKET_HEAD.unpack_from(tickets, at)[2] for at in range(0, len(tickets), 64)}
