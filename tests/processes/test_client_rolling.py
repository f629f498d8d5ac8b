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
from tests.fixtures.rolling import two_daemons, wait_busy

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


def has_connections(daemon: Daemon, count: int) -> bool:
    return connections(daemon) >= count


def connections(daemon: Daemon) -> int:
    port = int(daemon.grpc.rpartition(":")[2])
    ours = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in ours)


def test_a_rolling_replacement_is_not_noticed(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "affine.onnx", width=4, scale=2.0, bias=0.0)
    load = Load()
    with two_daemons(model, tmp_path) as pair:
        with (
            Client(pair.target, health_service="") as client,
            Client(pair.target, health_service="") as other,
        ):
            targets = ((load.many, client), (load.one_by_one, other), (load.asynchronous, pair.target))
            callers = run_all(targets)
            try:
                for at, old in enumerate(pair.daemons.copy()):
                    wait_busy(old, BUSY)
                    had = connections(old)
                    new = pair.replace(at)
                    wait_busy(new, BUSY)
                    # Only then may the other one go: each connection of the clients has both to choose from again.
                    new.wait_until(partial(has_connections, new, had), 60, "found again by all")
            finally:
                load.over.set()
                for caller in callers:
                    caller.join(60)
        assert not load.failures, load.failures[:10]
        assert len(load.answered) == 4, load.answered
