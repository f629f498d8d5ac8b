"""A simulated worker: the real one, whose threads run when they are resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from predictd.server.control.message import Message
from predictd.server.control.messages import Hello, WorkerInit
from predictd.server.transport.abi import ABI_VERSION
from predictd.server.transport.claims import ClaimState, read_claims
from predictd.server.transport.records import TICKET
from predictd.server.worker.main import Worker
from tests.simulation.frontend_process import FrontendProcess
from tests.simulation.process import Process
from tests.simulation.strand import Strand

if TYPE_CHECKING:
    from tests.simulation.world import World


class WorkerProcess(Process):
    """A worker: its run loop and its loader are strands; what its control thread does happens between two points."""

    def __init__(self, world: World, number: int, title: str) -> None:
        super().__init__(world, number, title)
        self.worker: Worker | None = None
        self.strands: list[Strand] = []
        self.send(Hello(pid=number, abi=ABI_VERSION))

    @override
    def take(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, WorkerInit):
            self.worker = Worker(self, message, fds)  # type: ignore[arg-type]
            self.begin("run loop", self._main)
        elif self.worker is not None:
            self.worker._handle(message, fds)  # type: ignore[arg-type]

    def begin(self, name: str, target: Callable[[], None]) -> None:
        """Start a thread."""
        self.strands.append(Strand(f"{self.title} {name}", target))

    def _main(self) -> None:
        assert self.worker is not None
        self.worker.main()
        strand = Strand.current
        assert strand is not None
        strand.stop("exit")
        self.world.leave(self)

    @override
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
    @override
    def wakes_ns(self) -> int | None:
        return min((one.wakes_ns for one in self.strands if one.wakes_ns is not None), default=None)

    def claimed(self) -> Iterator[tuple[int, int]]:
        """Front end and number of each request that it holds."""
        for door, ticket in self._held():
            if number := door.number(int(ticket["slot"]), int(ticket["generation"])):
                yield door.id, number

    def _held(self) -> Iterator[tuple[FrontendProcess, np.void]]:
        """Its tickets, and the front ends that they are of."""
        if self.worker is None:
            return
        doors = {door.id: door for door in self.world.frontends()}
        for ticket in np.frombuffer(read_claims(self.worker._claims._map)[1], TICKET):
            if door := doors.get(int(ticket["frontend"])):
                yield door, ticket

    def at_work(self) -> Iterator[tuple[int, int]]:
        """Lane and number of each request that a death now is counted against."""
        if self.worker is None or read_claims(self.worker._claims._map)[0] is not ClaimState.RUNNING:
            return
        for door, ticket in self._held():
            if number := door.number(int(ticket["slot"]), int(ticket["generation"])):
                yield int(ticket["lane"]), number

    @override
    def unwind(self) -> None:
        for strand in self.strands:
            strand.kill()
        self.strands.clear()
