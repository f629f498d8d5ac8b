"""How a worker waits for tickets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from predictd.server.worker.waiting import AWAKE_NS, WAITS_BETWEEN_TRIALS, TicketWait


class Clock:
    """Goes on by a tenth of the time awake at each look, and does something at one of them."""

    def __init__(self) -> None:
        self.looks = 0
        self.at: dict[int, Callable[[], object]] = {}

    def __call__(self) -> int:
        self.looks += 1
        self.at.pop(self.looks, lambda: None)()
        return self.looks * AWAKE_NS // 10


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


def come(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"\0")


def take(pipe: tuple[int, int]) -> None:
    os.read(pipe[0], 1)


def wait_once(wait: TicketWait, pipe: tuple[int, int]) -> None:
    """A wait that is over before it begins."""
    come(pipe)
    assert wait.until_ready(None, awake=True) == {pipe[0]}
    take(pipe)


def test_after_a_short_wait_the_next_ticket_is_waited_for_awake(pipe: tuple[int, int]) -> None:
    clock = Clock()
    wait = TicketWait([pipe[0]], clock)
    wait_once(wait, pipe)
    # Asleep it would not look at the clock again, and nobody else would ever write.
    clock.at[clock.looks + 5] = lambda: come(pipe)
    assert wait.until_ready(None, awake=True) == {pipe[0]}


def test_a_wait_is_awake_for_a_moment_only_and_in_vain_not_soon_again(pipe: tuple[int, int]) -> None:
    clock = Clock()
    wait = TicketWait([pipe[0]], clock)
    wait_once(wait, pipe)
    looks = clock.looks
    # At the last look of those in between: what comes later finds it asleep.
    timer = threading.Timer(0.05, come, [pipe])
    clock.at[looks + 11] = timer.start
    assert wait.until_ready(None, awake=True) == {pipe[0]}
    timer.join()
    assert clock.looks - looks == 11
    take(pipe)
    for _ in range(WAITS_BETWEEN_TRIALS - 2):
        wait_once(wait, pipe)
    looks = clock.looks
    timer = threading.Timer(0.05, come, [pipe])
    timer.start()
    assert wait.until_ready(None, awake=True) == {pipe[0]}
    timer.join()
    # Asleep: one look when the wait begins, and one that finds it short enough to try again.
    assert clock.looks - looks == 2
    take(pipe)
    clock.at[clock.looks + 5] = lambda: come(pipe)
    assert wait.until_ready(None, awake=True) == {pipe[0]}


def test_who_may_not_be_awake_sleeps(pipe: tuple[int, int]) -> None:
    clock = Clock()
    wait = TicketWait([pipe[0]], clock)
    wait_once(wait, pipe)
    looks = clock.looks
    timer = threading.Timer(0.05, come, [pipe])
    timer.start()
    assert wait.until_ready(None, awake=False) == {pipe[0]}
    timer.join()
    assert clock.looks == looks


def test_after_a_long_wait_it_sleeps(pipe: tuple[int, int]) -> None:
    clock = Clock()
    wait = TicketWait([pipe[0]], clock)
    timer = threading.Timer(0.05, come, [pipe])
    clock.at[2] = lambda: setattr(clock, "looks", clock.looks + 100)
    wait_once(wait, pipe)
    looks = clock.looks
    timer.start()
    assert wait.until_ready(None, awake=True) == {pipe[0]}
    timer.join()
    assert clock.looks - looks == 2


def test_a_wait_with_an_end_is_asleep(pipe: tuple[int, int]) -> None:
    clock = Clock()
    wait = TicketWait([pipe[0]], clock)
    wait_once(wait, pipe)
    looks = clock.looks
    assert wait.until_ready(0.001, awake=True) == set()
    assert clock.looks == looks
