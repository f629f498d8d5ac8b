"""A simulated process: a mailbox where its control channel would be, and descriptors that end with it."""

from __future__ import annotations

import abc
import os
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from predictd.server.control.message import Message
from predictd.server.control.messages import Ping

if TYPE_CHECKING:
    from tests.simulation.world import World

SIGKILL, SIGSEGV = -9, -11
Mail = tuple[Message, list[int]]


class Process(abc.ABC):
    """What simulated processes have in common.

    Attributes:
        alive: It was not killed and has not ended.
        stopped: A signal has stopped it.
        descriptors: That are open in it.
        inbox: Messages on their way to it.
        outbox: Messages on their way to the supervisor.
    """

    def __init__(self, world: World, number: int, title: str) -> None:
        self.world = world
        self.id = number
        self.title = title
        self.alive = True
        self.stopped = False
        self.descriptors: set[int] = set()
        self.inbox: deque[Mail] = deque()
        self.outbox: deque[Mail] = deque()

    @property
    def runs(self) -> bool:
        """It lives, and would get a CPU."""
        return self.alive and not self.stopped

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """To the supervisor. The channel of the product ends here."""
        copies = [self.world.duplicate(fd) for fd in fds]
        self.outbox.append((message, copies))

    def fileno(self) -> int:
        """The channel is not read by the product itself."""
        return -1

    def deliver(self) -> bool:
        """Take the next message in."""
        if not self.inbox:
            return False
        message, fds = self.inbox.popleft()
        self.descriptors.update(fds)
        if not isinstance(message, Ping):
            self.world.trace(f"{self.title} gets {type(message).__name__}")
        with self.world.inside(self):
            self.take(message, fds)
        return True

    @abc.abstractmethod
    def take(self, message: Message, fds: list[int]) -> None:
        """Handle a message."""

    @abc.abstractmethod
    def work(self) -> bool:
        """Let it run a little. False when it has nothing to do."""

    @property
    @abc.abstractmethod
    def wakes_ns(self) -> int | None:
        """When it will have something to do, if nothing happens before."""

    @abc.abstractmethod
    def unwind(self) -> None:
        """Let nothing of it run any more."""

    def step(self) -> bool:
        """Hear of something, or run a little."""
        if not self.alive:
            return False
        # Neither kills at once: what a step does to its own process is done after it.
        hear_first = self.world.draw.random() < 0.5
        first, second = (self.deliver, self.work) if hear_first else (self.work, self.deliver)
        return first() or second()

    def die(self, status: int) -> None:
        """End at once, as a signal would."""
        if not self.alive:
            return
        self.alive = False
        self.world.trace(f"{self.title} dies ({status})")
        self.unwind()
        for fd in list(self.descriptors):
            self.world.close(self, fd)
        for _, fds in self.inbox:
            for fd in fds:
                os.close(fd)
        self.inbox.clear()
        self.world.unlock_all(self)
        self.world.died(self, status)
