"""The clients of a simulated world: they ask, leave, and know what they may be told."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from predictd.engines.api import DType
from predictd.server.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)
from predictd.server.frontend.calls import MAX_ATTEMPTS
from predictd.server.frontend.inference import InferRequest, InferResponse, InputTensor
from tests.simulation.engine import REFUSAL
from tests.simulation.frontend_process import FrontendProcess
from tests.simulation.loop import Running
from tests.simulation.schedule import MS, Asked, Kind
from tests.simulation.troubles import Troubles

if TYPE_CHECKING:
    from tests.simulation.world import World

KNOCK_AGAIN_NS = 2 * MS
# What a client waits beyond its deadline before it leaves, as gRPC does.
LEAVES_AFTER_NS = MS


@dataclass(eq=False)
class Pending:
    """A request and what became of it.

    Attributes:
        door: The front end that it went to.
        deadline_ns: As a moment, 0 for none.
        ended: In a word.
    """

    asked: Asked
    door: FrontendProcess
    deadline_ns: int
    task: asyncio.Task[InferResponse]
    ended: str = ""

    @property
    def over(self) -> bool:
        """It was answered, or nobody is left who could."""
        return self.task.done() or not self.door.alive


class Client:
    """Everybody who asks.

    Attributes:
        pending: By number of the request.
        ended: How many requests ended how.
        troubles: What goes wrong beside.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: dict[int, Pending] = {}
        self.turned_away: set[int] = set()
        self.ended: dict[str, int] = {}
        self.troubles = Troubles(world)

    @property
    def doors(self) -> list[FrontendProcess]:
        """Front ends that can be reached."""
        return [one for one in self.world.frontends() if one.open]

    def begin(self) -> None:
        """Have every request come in its time."""
        now_ns = self.world.clock.now_ns
        for asked in self.world.schedule.requests:
            self.world.at(now_ns + asked.at_ns, functools.partial(self._knock, asked))

    @property
    def all_ended(self) -> bool:
        """Every request came and is over."""
        came = len(self.pending) + len(self.turned_away)
        return came == len(self.world.schedule.requests) and all(one.over for one in self.pending.values())

    def outstanding(self, lane: int, pool: int) -> list[int]:
        """Requests that have a ticket of a lane in a pool, and whose clients wait."""
        return [
            call.slot
            for door in self.world.frontends()
            if door.frontend is not None
            for call in door.frontend._dispatcher._calls
            if (call.lane.id, call.lane.pool) == (lane, pool) and call.future is not None
        ]

    def _knock(self, asked: Asked) -> None:
        world = self.world
        if not self.doors:
            if world.leaving:
                self.turned_away.add(asked.number)
            else:
                world.at(world.clock.now_ns + KNOCK_AGAIN_NS, functools.partial(self._knock, asked))
            return
        door = world.draw.choice(self.doors)
        assert door.frontend is not None
        now_ns = world.clock.now_ns
        deadline_ns = now_ns + asked.deadline_ns if asked.deadline_ns else 0
        request = _request(asked)
        world.trace(f"{door.title} is asked {asked.number} ({asked.kind.name.lower()}, {asked.rows} rows)")
        with Running(door.loop):
            task = door.loop.create_task(self._ask(door, request, deadline_ns))
        calls = door.frontend.server.calls
        calls.add(task)
        task.add_done_callback(calls.discard)
        pending = self.pending[asked.number] = Pending(asked, door, deadline_ns, task)
        task.add_done_callback(lambda _: world.trace(f"request {asked.number} ends"))
        if asked.cancel_after_ns:
            world.at(now_ns + asked.cancel_after_ns, functools.partial(self.leave, pending))
        if deadline_ns:
            world.at(deadline_ns + LEAVES_AFTER_NS, functools.partial(self.leave, pending))

    @staticmethod
    async def _ask(door: FrontendProcess, request: InferRequest, deadline_ns: int) -> InferResponse:
        """The handler: what begins here was accepted, and a client that left before was never there."""
        assert door.frontend is not None
        door.asked += 1
        return await door.frontend._service.infer(request, "simulated", deadline_ns)

    def leave(self, pending: Pending) -> None:
        """A client cancels."""
        if not pending.over:
            self.world.coverage.client_leaves(pending.door, pending.asked.number)
            self.world.trace(f"the client of {pending.asked.number} leaves")
            with Running(pending.door.loop):
                pending.task.cancel()

    # Judgement ------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Each request ended as it may."""
        for pending in self.pending.values():
            pending.ended = self._end(pending)
            self.ended[pending.ended] = self.ended.get(pending.ended, 0) + 1
        for number, deaths in self.world.deaths.items():
            if deaths > MAX_ATTEMPTS + 1:
                self.world.violated(f"request {number} was tried again after {deaths} deaths")

    def _end(self, pending: Pending) -> str:
        if not pending.task.done():
            return "lost with its front end"
        if pending.task.cancelled():
            return "cancelled"
        error = pending.task.exception()
        if error is None:
            self._check_answer(pending, pending.task.result())
            return "answered"
        if not isinstance(error, RequestError):
            self.world.violated(f"request {pending.asked.number} ended with a bug", error)
        elif (wrong := self._wrong(pending, error)) is not None:
            self.world.violated(f"request {pending.asked.number} {wrong}", error)
        return type(error).__name__

    def _check_answer(self, pending: Pending, response: InferResponse) -> None:
        asked = pending.asked
        (output,) = response.outputs
        answer = np.frombuffer(output.data, np.int64).reshape(output.shape)
        if answer.shape != (asked.rows, 2) or (answer[:, 0] != asked.number).any():
            self.world.violated(f"request {asked.number} got {answer.tolist()}, which is not its own answer")
        lanes = set(answer[:, 1].tolist())
        config = self.world.models.lanes[lanes.pop()]
        if lanes or (config.model, config.version) != (f"m{asked.model}", response.version):
            self.world.violated(f"request {asked.number} was answered by {config.model} {config.version}")
        if asked.version not in (0, config.version):
            self.world.violated(f"request {asked.number} names version {asked.version}, not {config.version}")
        if asked.kind is not Kind.GOOD:
            self.world.violated(f"request {asked.number} cannot be answered, but was")

    def _wrong(self, pending: Pending, error: RequestError) -> str | None:  # noqa: PLR0911 - one case an error
        """Why a request must not have ended like this; None when it may."""
        asked, world = pending.asked, self.world
        schedule = world.schedule
        match error:
            case DeadlineError():
                late = pending.deadline_ns and world.clock.now_ns >= pending.deadline_ns
                shed = pending.deadline_ns and "too near" in str(error)
                return None if late or shed else "has no deadline that could have passed"
            case InvalidRequestError() if REFUSAL in str(error):
                return None if asked.kind is Kind.BAD else "is refused for the sake of another"
            case InferenceError() if "the engine failed" in str(error):
                return None if asked.kind is Kind.BAD else "is refused for the sake of another"
            case InferenceError() if "crashes the engine" in str(error):
                due = world.deaths[asked.number] > MAX_ATTEMPTS
                return None if due else f"is called poison after {world.deaths[asked.number]} deaths"
            case OverloadedError() if pending.deadline_ns and error.limit == "expected_wait":
                return None
            case OverloadedError():
                room = min(schedule.max_queue_size, 64 if schedule.small_pipes else 1024)
                # Probes take room until a front end has heard of the death that the others have.
                others = schedule.frontends + world.killed_frontends - 1
                probes = world.worker_deaths * others
                # Where models share a queue, one leaves the others as much as it has itself.
                room = room // 2 if "its share" in str(error) else room
                bounded = room < len(schedule.requests) + probes or self.troubles.memory
                return None if bounded else "is refused for want of room that is there"
            case UnknownModelError():
                gone = asked.version and self.troubles.swaps
                return None if gone else "names what was always there"
            case ModelUnavailableError():
                may = (
                    world.leaving
                    or world.kills_workers(asked.model)
                    or (asked.version and self.troubles.swaps)
                )
                return None if may else "names what serves"
        return "ended unexpectedly"

    def count(self) -> None:
        """Every request that a front end accepted is in its counts, once."""
        for door in self.world.frontends():
            counted = sum(door.counted.values()) + self._uncounted(door)
            if counted != door.asked:
                self.world.violated(f"{door.title} was asked {door.asked} times and counted {counted}")

    @staticmethod
    def _uncounted(door: FrontendProcess) -> int:
        assert door.frontend is not None
        return sum(one.requests for one in door.frontend._recorder.take().requests)


def _request(asked: Asked) -> InferRequest:
    x = np.zeros((asked.rows, asked.width), np.int64)
    x[:, 0] = asked.number
    x[:, 1] = asked.kind
    tensor = InputTensor("x", DType.INT64, x.shape, x.tobytes())
    version = asked.version or None
    return InferRequest(f"m{asked.model}", [tensor], version, priority=asked.priority)
