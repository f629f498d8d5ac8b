"""The core, between routes and a dispatcher that answers as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from predictd.engines.api import DType
from predictd.server.config.lane import WireTensor
from predictd.server.control.message import Message
from predictd.server.frontend.calls import Answered
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.inference import InferRequest
from predictd.server.frontend.order import Order
from predictd.server.frontend.routing import Routes
from predictd.server.frontend.service import Service
from predictd.server.frontend.uploads import Uploads
from predictd.server.observe.recorder import FrontendRecorder
from tests.fixtures.frontend import SECRET, config, publication, signature, view

Calls = Callable[..., Coroutine[Any, Any, Answered]]


class FakeDispatcher:
    """Answers as it is told and remembers what it was asked."""

    def __init__(self, answer: Calls) -> None:
        self._answer = answer
        self.wanted: list[tuple[int, ...]] = []
        self.deadlines: list[int] = []
        self.priorities: list[int] = []
        self.patience_ns: list[int] = []
        self.attempts: list[tuple[int, int]] = []
        self.pools: list[int] = []
        self.moved: list[bool] = []

    async def call(self, order: Order) -> Answered:
        self.attempts.append((order.lane.id, order.attempt))
        self.pools.append(order.lane.pool)
        self.moved.append(order.moved)
        self.wanted.append(order.wanted)
        self.priorities.append(order.queue.level)
        self.patience_ns.append(order.patience_ns)
        self.deadlines.append(order.deadline_ns)
        return await self._answer()


class Setup:
    def __init__(
        self, answer: Calls, draw: Callable[[], float] = random.random, limit: int = 0, **lane: object
    ) -> None:
        self.dispatcher = FakeDispatcher(answer)
        self.recorder = FrontendRecorder()
        self.sent: list[Message] = []
        self.routes = Routes(SECRET, draw)
        outputs = (WireTensor("y", DType.FP32, (-1, 2)), WireTensor("z", DType.FP32, (-1, 2)))
        one = view(signature=signature(outputs=outputs), config=config(11, **lane))
        self.routes.publish(publication(one))
        self.service = Service(
            self.routes,
            self.dispatcher,  # type: ignore[arg-type]
            self.recorder,
            lambda message, _: self.sent.append(message),
            ClientLimit(limit),
            Uploads(),
        )

    def infer(self, one: InferRequest, deadline_ns: int = 0) -> Coroutine[Any, Any, Any]:
        return self.service.infer(one, "api", deadline_ns)

    def counted(self) -> dict[tuple[int | None, str], int]:
        return {(one.lane, one.status): one.requests for one in self.recorder.take().requests}


async def answered() -> Answered:
    return Answered([], 3, 4, 8, 2)


async def never() -> Answered:
    future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
    return await future
