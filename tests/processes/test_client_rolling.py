"""Two daemons behind our own clients, told to look at their health, are replaced under load: no call fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from predictd.client import AsyncClient, Client, PredictdError, Prediction
from tests.fixtures import models
from tests.fixtures.daemon import Daemon

DUCKS = ("500ms", "0s")
BUSY = 50


class Load:
    """What callers see while they go on until they are told to stop.

    Attributes:
        over: Tells them.
        failures: What was no right answer.
        answered: How many were right, by caller.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[str] = []
        self.answered: dict[str, int] = {}

    def inputs(self) -> Iterator[Any]:
        number = 0
        while not self.over.is_set():
            yield x(number)
            number += 1

    def note(self, caller: str, number: int, answer: Prediction | PredictdError) -> None:
        if isinstance(answer, Prediction) and np.array_equal(answer.outputs["y"], x(number) * 2):
            self.answered[caller] = self.answered.get(caller, 0) + 1
        else:
            self.failures.append(f"{caller} {number}: {answer!r}")

    def many(self, client: Client) -> None:
        for number, answer in enumerate(client.predict_many("affine", self.inputs())):
            self.note("blocking stream", number, answer)

    def one_by_one(self, client: Client) -> None:
        for number, one in enumerate(self.inputs()):
            self.note("blocking calls", number, answer_of(partial(client.predict, "affine", one)))

    def asynchronous(self, target: str) -> None:
        asyncio.run(self._asynchronous(target))

    async def _asynchronous(self, target: str) -> None:
        async def many(unary: bool) -> None:
            answers = client.predict_many("affine", self.inputs(), unary=unary)
            number = 0
            async for answer in answers:
                self.note(f"asyncio {'calls' if unary else 'stream'}", number, answer)
                number += 1

        async with AsyncClient(target, health_service="") as client:
            await asyncio.gather(many(unary=False), many(unary=True))


def x(number: int) -> Any:
    return np.full((1, 4), number, np.float32)


def answer_of(call: Callable[[], Prediction]) -> Prediction | PredictdError:
    try:
        return call()
    except PredictdError as error:
        return error


def run_all(targets: Iterable[tuple[Callable[..., None], Any]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, args=(argument,)) for target, argument in targets]
    for thread in threads:
        thread.start()
    return threads


def wait_busy(daemon: Daemon) -> int:
    """Wait until a daemon has answered some of the load. Returns how many connections the clients have to it."""
    daemon.wait_until(lambda: daemon.metric("predictd_requests_total", status="OK") > BUSY, 60, "busy")
    return connections(daemon)


def has_connections(daemon: Daemon, count: int) -> bool:
    return connections(daemon) >= count


def connections(daemon: Daemon) -> int:
    port = int(daemon.grpc.rpartition(":")[2])
    ours = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in ours)


def test_a_rolling_replacement_is_not_noticed(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "affine.onnx", width=4, scale=2.0, bias=0.0)
    daemons = [
        Daemon(model, "--lame-duck", duck, folder=tmp_path / f"first{at}") for at, duck in enumerate(DUCKS)
    ]
    load = Load()
    try:
        for daemon in daemons:
            daemon.wait_ready()
        target = f"ipv4:{','.join(daemon.grpc for daemon in daemons)}"
        with Client(target, health_service="") as client, Client(target, health_service="") as other:
            callers = run_all(((load.many, client), (load.one_by_one, other), (load.asynchronous, target)))
            try:
                for at, old in enumerate(daemons.copy()):
                    had = wait_busy(old)
                    assert old.stop() == 0
                    new = daemons[at] = Daemon(model, folder=tmp_path / f"second{at}", grpc=old.grpc)
                    new.wait_ready()
                    wait_busy(new)
                    # Only then may the other one go: each connection of the clients has both to choose from again.
                    new.wait_until(partial(has_connections, new, had), 60, "found again by all")
            finally:
                load.over.set()
                for caller in callers:
                    caller.join(60)
        assert not load.failures, load.failures[:10]
        assert len(load.answered) == 4, load.answered
        for daemon in daemons:
            assert daemon.stop() == 0
    except BaseException:
        for daemon in daemons:
            print(daemon.output())
        raise
    finally:
        for daemon in daemons:
            daemon.kill()
