"""A simulated front end: the real one on a simulated event loop, without gRPC."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from predictd.server.control.message import Message
from predictd.server.control.messages import FrontendCounts, FrontendInit, Hello
from predictd.server.frontend.main import Frontend
from predictd.server.transport.abi import ABI_VERSION
from predictd.server.transport.blocks import read_request
from tests.simulation.loop import Loop, Running
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class FakeServer:
    """Stands for the gRPC server: knows its calls, and waits for them when it stops."""

    def __init__(self) -> None:
        self.open = False
        self.calls: set[asyncio.Task[Any]] = set()

    def add_generic_rpc_handlers(self, services: object) -> None:
        """Nobody calls them."""

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

    @override
    def _make_server(self) -> Any:
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
        self.send(Hello(pid=number, abi=ABI_VERSION))

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

    @override
    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if isinstance(message, FrontendCounts):
            for one in message.delta.requests:
                self.counted[one.status] = self.counted.get(one.status, 0) + one.requests
        super().send(message, fds)

    @override
    def take(self, message: Message, fds: list[int]) -> None:
        with Running(self.loop):
            if isinstance(message, FrontendInit):
                self.frontend = SimulatedFrontend(self, message, fds[0])  # type: ignore[arg-type]
                self.run = self.loop.create_task(self.frontend.run())
                self.run.add_done_callback(lambda _: self.world.leave(self))
            elif self.frontend is not None:
                self.frontend._handle(message, fds)  # type: ignore[arg-type]

    @override
    def work(self) -> bool:
        if not self.loop.busy:
            return False
        with self.world.inside(self):
            self.loop.turn()
        self.world.settle_deaths()
        return True

    @property
    @override
    def wakes_ns(self) -> int | None:
        return self.loop.wakes_ns

    @override
    def unwind(self) -> None:
        self.loop.close()
        for call in self.frontend.server.calls if self.frontend else ():
            handler = call.get_coro()
            # One that never began would be complained of.
            if isinstance(handler, Coroutine) and inspect.getcoroutinestate(handler) == inspect.CORO_CREATED:
                handler.close()
