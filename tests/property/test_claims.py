"""The claim table: what a reader sees in each state, and after a broken engine wrote over it."""

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from predictd.server.transport.claims import (
    CLAIMS_BYTES,
    CLAIMS_CAPACITY,
    CLAIMS_HEADER_BYTES,
    ClaimState,
    ClaimWriter,
    claimed_lanes,
    completed_batches,
    read_claims,
    read_pulse,
)
from predictd.server.transport.memory import map_shared
from predictd.server.transport.records import TICKET_STRUCT

_TICKET = struct.Struct(TICKET_STRUCT)


def encode(lane: int, slot: int) -> bytes:
    return _TICKET.pack(1, 0, lane, 1, 2, 64, 1, 0, 0, slot, 1, 0, 0, 2**63 - 1)


@contextmanager
def open_table() -> Iterator[tuple[ClaimWriter, mmap.mmap]]:
    writer = ClaimWriter()
    try:
        with map_shared(writer.fd, CLAIMS_BYTES) as reader:
            yield writer, reader
    finally:
        os.close(writer.fd)


class ClaimsMachine(RuleBasedStateMachine):
    """A worker claims, starts and clears; a reader looks after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.context = open_table()
        self.writer, self.reader = self.context.__enter__()
        self.state = ClaimState.IDLE
        self.held: list[tuple[int, int]] = []
        self.batches = 0
        self.turns = 0

    @rule()
    def turn(self) -> None:
        self.writer.turn()
        self.turns += 1

    @precondition(lambda self: self.state is ClaimState.IDLE)
    @rule()
    def close_an_engine(self) -> None:
        self.writer.busy()
        assert read_pulse(self.reader).busy_since_ns
        self.writer.done()

    @precondition(lambda self: self.state is ClaimState.RUNNING)
    @rule()
    def run_again(self) -> None:
        before = read_pulse(self.reader)
        self.writer.busy()
        assert read_pulse(self.reader) >= before

    @precondition(lambda self: self.state is ClaimState.IDLE)
    @rule(tickets=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2**32 - 1)), min_size=1, max_size=20))
    def hold(self, tickets: list[tuple[int, int]]) -> None:
        self.writer.hold(b"".join(encode(lane, slot) for lane, slot in tickets))
        self.state, self.held = ClaimState.WAITING, tickets

    @precondition(lambda self: self.state is ClaimState.WAITING)
    @rule()
    def start(self) -> None:
        self.writer.start()
        self.state = ClaimState.RUNNING

    @precondition(lambda self: self.state is ClaimState.RUNNING)
    @rule()
    def clear(self) -> None:
        self.writer.clear()
        self.state, self.held = ClaimState.IDLE, []
        self.batches += 1

    @invariant()
    def the_reader_sees_what_the_worker_holds(self) -> None:
        state, tickets = read_claims(self.reader)
        assert state is self.state
        assert tickets == b"".join(encode(lane, slot) for lane, slot in self.held)
        assert completed_batches(self.reader) == self.batches
        turns, busy_since_ns = read_pulse(self.reader)
        assert turns == self.turns
        assert bool(busy_since_ns) == (self.state is ClaimState.RUNNING)
        running = {lane for lane, _ in self.held} if self.state is ClaimState.RUNNING else set()
        assert claimed_lanes(self.reader) == running

    @override
    def teardown(self) -> None:
        self.context.__exit__(None, None, None)


TestClaims = ClaimsMachine.TestCase
TestClaims.settings = settings(max_examples=50, stateful_step_count=30)


def test_a_full_table_is_held_and_one_more_ticket_is_refused() -> None:
    with open_table() as (writer, reader):
        writer.hold(encode(1, 7) * CLAIMS_CAPACITY)
        assert len(read_claims(reader)[1]) == CLAIMS_CAPACITY * 64
        with pytest.raises((IndexError, ValueError)):
            writer.hold(encode(1, 7) * (CLAIMS_CAPACITY + 1))
        assert len(read_claims(reader)[1]) == CLAIMS_CAPACITY * 64


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=200))
def test_garbage_reads_as_tickets_that_ran_at_most(header: bytes, tickets: bytes) -> None:
    with mmap.mmap(-1, CLAIMS_BYTES) as table:
        table[:16] = header
        table[CLAIMS_HEADER_BYTES : CLAIMS_HEADER_BYTES + len(tickets)] = tickets
        state, held = read_claims(table)
        number = struct.unpack_from("<I", header, 8)[0]
        assert state == (number if number in list(ClaimState) else ClaimState.RUNNING)
        assert len(held) == 64 * min(struct.unpack_from("<I", header)[0], CLAIMS_CAPACITY)
        assert isinstance(completed_batches(table), int)
        assert len(claimed_lanes(table)) <= len(held) // 64
