"""One gRPC server after the other, and an end that waits for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from predictd.server.access.rules import AccessRules
from predictd.server.frontend.servers import Servers


class Server:
    """Stands for gRPC's: stops once its calls are over."""

    def __init__(self, deafened: Callable[[], None]) -> None:
        self.deafened = deafened
        self.ports: list[str] = []
        self.idle = asyncio.Event()
        self.started = self.stopping = False

    def add_insecure_port(self, address: str) -> None:
        self.ports.append(address)

    async def start(self) -> None:
        self.started = True

    async def stop(self, grace_seconds: float) -> None:
        assert grace_seconds > 0
        self.stopping = True
        await self.idle.wait()


class Played(Servers):
    """Servers without gRPC."""

    made: list[Server]

    def _make(self) -> Any:  # type: ignore[explicit-override]
        self.made = [*getattr(self, "made", ()), Server(self._deafened)]
        return self.made[-1]


class Tasks:
    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def servers(tasks: Tasks) -> Played:
    init: Any = SimpleNamespace(addresses=["127.0.0.1:1", "[::1]:1"], unix="", access=AccessRules())
    unused: Any = None
    return Played(init, unused, unused, tasks.spawn)


def test_the_end_waits_for_the_calls_of_a_server_that_was_replaced() -> None:
    async def play() -> None:
        tasks = Tasks()
        subject = servers(tasks)
        await subject.open()
        subject.made[0].deafened()
        await settle()
        first, second = subject.made
        assert (first.stopping, second.started, second.stopping) == (True, True, False)
        assert first.ports == second.ports == ["127.0.0.1:1", "[::1]:1"]
        ending = asyncio.create_task(subject.stop(60))
        second.idle.set()
        await settle()
        assert second.stopping
        assert not ending.done()
        first.idle.set()
        await ending
        await asyncio.gather(*tasks.tasks)

    asyncio.run(play())


def test_it_waits_no_longer_than_it_was_told() -> None:
    async def play() -> None:
        tasks = Tasks()
        subject = servers(tasks)
        await subject.open()
        subject.made[0].deafened()
        await settle()
        subject.made[1].idle.set()
        await subject.stop(0.01)
        assert not tasks.tasks[0].done()
        tasks.tasks[0].cancel()
        await asyncio.gather(*tasks.tasks, return_exceptions=True)

    asyncio.run(play())


def test_at_the_end_nothing_is_opened_any_more() -> None:
    async def play() -> None:
        tasks = Tasks()
        subject = servers(tasks)
        await subject.open()
        (first,) = subject.made
        first.idle.set()
        first.deafened()
        # Before the task that replaces it has run, and once more after.
        ending = asyncio.create_task(subject.stop(1))
        subject.made[-1].idle.set()
        await settle()
        for server in subject.made:
            server.idle.set()
        await ending
        await asyncio.gather(*tasks.tasks)
        assert [server.started for server in subject.made[1:]] == [False]
        subject.made[-1].deafened()
        assert len(subject.made) == 2
        assert len(tasks.tasks) == 1

    asyncio.run(play())
