"""Simulated processes: the real `Worker` and `Frontend`, with a mailbox where their control channel would be."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from predictd.server.control.messages import (
    FrontendCounts,
    FrontendInit,
    Hello,
    Message,
    WorkerInit,
)
from predictd.server.frontend.main import Frontend
from predictd.server.supervise import frontends, supervisor
from predictd.server.supervise.child import OnExit, OnMessage
from predictd.server.transport.blocks import read_request
from predictd.server.transport.claims import ClaimState, read_claims
from predictd.server.transport.records import TICKET
from predictd.server.worker.main import Worker
from tests.simulation.loop import Loop, Running
from tests.simulation.strand import KilledError, Strand

if TYPE_CHECKING:
    from tests.simulation.world import World

SIGKILL, SIGSEGV = -9, -11
Mail = tuple[Message, list[int]]


class Actor(Protocol):
    """Something that can take a step."""

    def step(self) -> bool:
        """Take one if there is one to take."""

    @property
    def wakes_ns(self) -> int | None:
        """When there will be one, if nothing happens before."""


class Process:
    """What simulated processes have in common.

    Attributes:
        alive: It was not killed and has not ended.
        descriptors: That are open in it.
        inbox: Messages on their way to it.
        outbox: Messages on their way to the supervisor.
    """

    def __init__(self, world: World, number: int, title: str) -> None:
        self.world = world
        self.id = number
        self.title = title
        self.alive = True
        self.descriptors: set[int] = set()
        self.inbox: deque[Mail] = deque()
        self.outbox: deque[Mail] = deque()

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
        self.world.trace(f"{self.title} gets {type(message).__name__}")
        with self.world.inside(self):
            self.take(message, fds)
        return True

    def take(self, message: Message, fds: list[int]) -> None:
        """Handle a message."""
        raise NotImplementedError

    def work(self) -> bool:
        """Let it run a little. False when it has nothing to do."""
        raise NotImplementedError

    @property
    def wakes_ns(self) -> int | None:
        """When it will have something to do."""
        raise NotImplementedError

    def step(self) -> bool:
        """Hear of something, or run a little."""
        if not self.alive:
            return False
        hear_first = self.world.draw.random() < 0.5
        first, second = (self.deliver, self.work) if hear_first else (self.work, self.deliver)
        return first() or (self.alive and second())

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

    def unwind(self) -> None:
        """Let nothing of it run any more."""


class WorkerProcess(Process):
    """A worker: its run loop and its loader are strands; what its control thread does happens between two points."""

    def __init__(self, world: World, number: int, title: str) -> None:
        super().__init__(world, number, title)
        self.worker: Worker | None = None
        self.strands: list[Strand] = []
        self.send(Hello(pid=number, abi=supervisor.ABI_VERSION))

    def take(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, WorkerInit):
            self.worker = Worker(self, message, fds)  # type: ignore[arg-type]
            self.begin("run loop", self._main)
        elif self.worker is not None:
            self.worker._handle(message, fds)  # type: ignore[arg-type]

    def begin(self, name: str, target: Any) -> None:
        """Start a thread."""
        self.strands.append(Strand(f"{self.title} {name}", target, lambda: None))

    def _main(self) -> None:
        assert self.worker is not None
        self.worker.main()
        strand = Strand.current
        assert strand is not None
        strand.stop("exit")
        self.world.leave(self)

    def work(self) -> bool:
        ready = [strand for strand in self.strands if strand.is_ready(self.world.clock.now_ns)]
        if not ready:
            return False
        strand = ready[0] if len(ready) == 1 else self.world.draw.choice(ready)
        with self.world.inside(self):
            strand.resume()
        if strand.done:
            self.strands.remove(strand)
            if strand.error is not None:
                self.world.violated(f"{strand.name} failed", strand.error)
        self.world.settle_deaths()
        return True

    @property
    def wakes_ns(self) -> int | None:
        return min((one.wakes_ns for one in self.strands if one.wakes_ns is not None), default=None)

    def at_work(self) -> Iterator[tuple[int, int]]:
        """Lane and number of each request that a death now is counted against."""
        if self.worker is None:
            return
        state, tickets = read_claims(self.worker._claims._map)
        if state is not ClaimState.RUNNING:
            return
        doors = {door.id: door for door in self.world.frontends()}
        for ticket in np.frombuffer(tickets, TICKET):
            door = doors.get(int(ticket["frontend"]))
            number = door and door.number(int(ticket["slot"]), int(ticket["generation"]))
            if number:
                yield int(ticket["lane"]), number

    def unwind(self) -> None:
        for strand in self.strands:
            strand.kill()
        self.strands.clear()


class FakeServer:
    """Stands for the gRPC server: knows its calls, and waits for them when it stops."""

    def __init__(self) -> None:
        self.open = False
        self.calls: set[asyncio.Task[Any]] = set()

    def add_insecure_port(self, address: str) -> int:
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self.open = True

    async def stop(self, grace: float) -> None:
        self.open = False
        if self.calls:
            await asyncio.wait(set(self.calls), timeout=grace)
        for call in self.calls:
            call.cancel()


class SimulatedFrontend(Frontend):
    """The real one, without gRPC."""

    server: FakeServer

    def _make_server(self) -> Any:  # type: ignore[explicit-override]
        self.server = FakeServer()
        return self.server


class FrontendProcess(Process):
    """A front end on its event loop.

    Attributes:
        counted: Requests by outcome, as its messages said.
    """

    def __init__(self, world: World, number: int, title: str) -> None:
        super().__init__(world, number, title)
        self.loop = Loop(world.clock, self._failed)
        self.frontend: SimulatedFrontend | None = None
        self.run: asyncio.Task[None] | None = None
        self.counted: dict[str, int] = {}
        self.asked = 0
        self.send(Hello(pid=number, abi=supervisor.ABI_VERSION))

    @property
    def open(self) -> bool:
        """Clients reach it."""
        return self.alive and self.frontend is not None and self.frontend.server.open

    def number(self, slot: int, generation: int) -> int | None:
        """The identity of the request that a ticket is for, as its block says; None when that is over."""
        assert self.frontend is not None
        dispatcher = self.frontend._dispatcher
        call = dispatcher._calls.find(slot, generation)
        if call is None:
            return None
        block = dispatcher._pools[call.lane.pool].arena.view(call.block)
        return int.from_bytes(block[read_request(block).inputs[0].offset :][:8], "little")

    def _failed(self, message: str, error: BaseException | None) -> None:
        if self.alive:
            self.world.violated(f"{self.title}: {message}", error)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if isinstance(message, FrontendCounts):
            for one in message.delta.requests:
                self.counted[one.status] = self.counted.get(one.status, 0) + one.requests
        super().send(message, fds)

    def take(self, message: Message, fds: list[int]) -> None:
        with Running(self.loop):
            if isinstance(message, FrontendInit):
                self.frontend = SimulatedFrontend(self, message, fds[0])  # type: ignore[arg-type]
                self.run = self.loop.create_task(self.frontend.run())
                self.run.add_done_callback(lambda _: self.world.leave(self))
            elif self.frontend is not None:
                self.frontend._handle(message, fds)  # type: ignore[arg-type]

    def work(self) -> bool:
        if not self.loop.busy:
            return False
        with self.world.inside(self):
            self.loop.turn()
        self.world.settle_deaths()
        return True

    @property
    def wakes_ns(self) -> int | None:
        return self.loop.wakes_ns

    def unwind(self) -> None:
        self.loop.close()
        for call in self.frontend.server.calls if self.frontend else ():
            handler = call.get_coro()
            # One that never began would be complained of.
            if isinstance(handler, Coroutine) and inspect.getcoroutinestate(handler) == inspect.CORO_CREATED:
                handler.close()


class SimulatedChild:
    """Stands for `Child`: what the supervisor holds of a process."""

    def __init__(
        self,
        world: World,
        child_id: int,
        title: str,
        module: str,
        *,
        environment: Mapping[str, str],
        cpus: Sequence[int],
        numa_nodes: Sequence[int],
        on_message: OnMessage,
        on_exit: OnExit,
    ) -> None:
        del environment, cpus, numa_nodes
        self.id = child_id
        self.title = title
        self.pid = child_id
        self.over = False
        self._world = world
        self._on_message = on_message
        self._on_exit = on_exit
        kind = FrontendProcess if module == frontends.MODULE else WorkerProcess
        self.process: Process = kind(world, child_id, f"{title} #{child_id}")
        world.joined(self)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self.process.alive:
            self.process.inbox.append((message, [self._world.duplicate(fd) for fd in fds]))

    def kill(self) -> None:
        self._world.condemn(self.process, SIGKILL)

    def hear(self) -> bool:
        """Give the supervisor the next message of the process."""
        if self.over or not self.process.outbox:
            return False
        message, fds = self.process.outbox.popleft()
        self._world.trace(f"supervisor gets {type(message).__name__} of {self.title} #{self.id}")
        self._world.supervisor_descriptors.update(fds)
        self._on_message(self, message, fds)  # type: ignore[arg-type]
        return True

    def reap(self, status: int) -> None:
        """The end of the process is known. What it said before is heard first."""
        while self.hear():
            pass
        self.over = True
        self._on_exit(self, status)  # type: ignore[arg-type]


__all__ = ["FrontendProcess", "KilledError", "SimulatedChild", "WorkerProcess"]
