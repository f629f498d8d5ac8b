"""When tickets wait for one another."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from predictd.server.frontend import queues as queues_module
from predictd.server.frontend.holding import (
    AWAKE_SHARE,
    HELD_NS_MAX,
    LOOK_EVERY_NS,
    Holding,
    awake_clock,
)
from predictd.server.frontend.queues import TICKETS_HELD_MAX, TicketQueues
from predictd.server.transport.pipes import Pipe, make_pipe

TICKET = bytes(64)


class Thread:
    """A thread of which is known for what part of its time it was awake."""

    def __init__(self) -> None:
        self.awake_ns = 0
        self.holding = Holding(lambda: self.awake_ns)
        self.now_ns = time.monotonic_ns() + LOOK_EVERY_NS
        self.holding.look(self.now_ns)

    def passes(self, awake: float, looks: int = 1) -> int:
        for _ in range(looks):
            self.now_ns += LOOK_EVERY_NS
            self.awake_ns += int(awake * LOOK_EVERY_NS)
            self.holding.look(self.now_ns)
        return self.holding.held_ns


BUSY = AWAKE_SHARE + 0.05
SLEEPY = AWAKE_SHARE - 0.05


def test_tickets_wait_longer_and_longer_while_the_loop_never_sleeps() -> None:
    thread = Thread()
    held = [thread.passes(BUSY) for _ in range(8)]
    assert 0 < held[0] < held[1] < held[2]
    assert held[-1] == HELD_NS_MAX


def test_a_loop_that_sleeps_sends_each_ticket_at_once() -> None:
    thread = Thread()
    assert thread.passes(SLEEPY, looks=50) == 0
    thread.passes(BUSY, looks=8)
    assert thread.passes(SLEEPY, looks=3) == 0


def test_what_puts_the_loop_to_sleep_is_tried_less_and_less() -> None:
    thread = Thread()
    held = [thread.passes(SLEEPY if thread.holding.held_ns else BUSY) for _ in range(2000)]
    tried = [look for look, held_ns in enumerate(held) if held_ns]
    gaps = [b - a for a, b in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1] / 10
    assert 200 < gaps[-1] < 400


def test_what_was_good_for_long_is_soon_tried_again() -> None:
    thread = Thread()
    for _ in range(4):
        while not thread.passes(BUSY):
            pass
        thread.passes(SLEEPY)
    while not thread.passes(BUSY):
        pass
    thread.passes(BUSY, looks=30)
    thread.passes(SLEEPY, looks=4)
    assert any(thread.passes(BUSY) for _ in range(20))


def test_between_two_looks_nothing_changes() -> None:
    asked = []

    def awake_ns() -> int:
        asked.append(1)
        return 0

    holding = Holding(awake_ns)
    now_ns = time.monotonic_ns()
    for _ in range(100):
        holding.look(now_ns)
    assert len(asked) == 1


def test_this_thread_is_awake_while_it_works() -> None:
    clock = awake_clock()
    before, until = clock(), time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    passed_ns = clock() - before
    # A kernel without these statistics leaves the clock standing.
    assert passed_ns == 0 or passed_ns > 40_000_000


def test_where_nothing_tells_the_clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", refuse)
    assert awake_clock()() == 0


def held(scenario: Callable[[TicketQueues, Pipe], None], *, busy: bool = True) -> int:
    """Have a scenario put tickets while they are held; how many are in the pipe at the end of its turn, and later."""
    pipe = make_pipe()
    thread = Thread()
    thread.passes(BUSY if busy else SLEEPY, looks=10)

    async def run() -> None:
        queues = TicketQueues([pipe.write_fd], lambda _: None, 1024, 1, thread.holding)
        scenario(queues, pipe)
        sent = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.read_fd, sent.set)
        async with asyncio.timeout(20):
            await sent.wait()
        asyncio.get_running_loop().remove_reader(pipe.read_fd)
        queues.close()

    asyncio.run(run())
    depth = pipe.depth()
    os.close(pipe.read_fd)
    return depth


@pytest.fixture
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes to put tickets, none has waited for long enough."""
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(queues_module, "time", SimpleNamespace(monotonic_ns=lambda: now_ns))


@pytest.mark.usefixtures("_still")
def test_held_tickets_leave_by_themselves() -> None:
    def scenario(queues: TicketQueues, pipe: Pipe) -> None:
        for _ in range(3):
            queues.put(TICKET, 1, at_once=True)
        assert pipe.depth() == 0

    assert held(scenario) == 3


@pytest.mark.usefixtures("_still")
def test_as_many_as_one_write_takes_leave_at_once() -> None:
    def scenario(queues: TicketQueues, pipe: Pipe) -> None:
        for number in range(TICKETS_HELD_MAX):
            assert pipe.depth() == 0, number
            queues.put(TICKET, 1)
        assert pipe.depth() == TICKETS_HELD_MAX

    assert held(scenario) == TICKETS_HELD_MAX


def test_one_that_comes_late_takes_the_others_along() -> None:
    def scenario(queues: TicketQueues, pipe: Pipe) -> None:
        queues.put(TICKET, 1)
        until_ns = time.monotonic_ns() + 2 * HELD_NS_MAX
        while time.monotonic_ns() < until_ns:
            pass
        queues.put(TICKET, 1)
        assert pipe.depth() == 2

    assert held(scenario) == 2


def test_what_is_not_held_leaves_at_once_if_it_shall() -> None:
    def scenario(queues: TicketQueues, pipe: Pipe) -> None:
        queues.put(TICKET, 1, at_once=True)
        assert pipe.depth() == 1

    assert held(scenario, busy=False) == 1
