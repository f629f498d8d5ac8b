"""Tickets on their way into the queues of a pool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import cast

import pytest

from predictd.server.frontend.calls import Call
from predictd.server.frontend.holding import Holding
from predictd.server.frontend.queues import TicketQueues
from predictd.server.transport.pipes import Pipe, make_pipe

TICKET = bytes(64)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = make_pipe()
    yield made
    os.close(made.read_fd)


def call(number: int) -> Call:
    return cast("Call", number)


def flush(pipe: Pipe, limit: int, entries: list[Call | None]) -> list[Call]:
    """Put entries into the one level of a queue in one turn; who is refused."""
    refused: list[Call] = []

    async def turn() -> None:
        queues = TicketQueues([pipe.write_fd], refused.append, limit, 2, Holding(lambda: 0))
        for entry in entries:
            queues.put(TICKET, 1, entry)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queues.close()

    asyncio.run(turn())
    return refused


def test_a_limit_below_the_size_of_a_pipe_is_kept(pipe: Pipe) -> None:
    assert flush(pipe, 10, [call(number) for number in range(15)]) == [
        call(number) for number in range(10, 15)
    ]
    assert pipe.depth() == 10


def test_what_waits_already_counts(pipe: Pipe) -> None:
    os.write(pipe.write_fd, TICKET * 8)
    assert flush(pipe, 10, [call(1), call(2), call(3)]) == [call(3)]


def test_probes_take_no_room_from_requests(pipe: Pipe) -> None:
    """Neither ours nor those of the other front end, which heard of the same death."""
    refused: list[Call] = []

    async def scenario() -> None:
        queues = TicketQueues([pipe.write_fd], refused.append, 2, 2, Holding(lambda: 0))
        os.write(pipe.write_fd, TICKET)
        queues.put_probe(TICKET, 1)
        for number in (1, 2, 3):
            queues.put(TICKET, 1, call(number))
        await asyncio.sleep(0)
        assert (refused, pipe.depth()) == ([call(3)], 4)
        os.read(pipe.read_fd, 4 * len(TICKET))
        queues.probes_back(1)
        for number in (4, 5, 6):
            queues.put(TICKET, 1, call(number))
        await asyncio.sleep(0)
        assert (refused, pipe.depth()) == ([call(3), call(6)], 2)
        queues.close()

    asyncio.run(scenario())


def test_what_was_accepted_before_is_never_refused(pipe: Pipe) -> None:
    os.write(pipe.write_fd, TICKET * 10)
    assert flush(pipe, 10, [None, call(1), None]) == [call(1)]
    assert pipe.depth() == 12


def test_a_full_pipe_refuses_the_rest(pipe: Pipe) -> None:
    refused = flush(pipe, 1 << 20, [call(number) for number in range(pipe.records + 3)])
    assert refused == [call(number) for number in range(pipe.records, pipe.records + 3)]


def test_the_tickets_of_a_turn_leave_in_one_write(pipe: Pipe) -> None:
    assert flush(pipe, 1024, [call(number) for number in range(64)]) == []
    assert os.read(pipe.read_fd, 1 << 16) == TICKET * 64
