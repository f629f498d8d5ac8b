"""What the API adapters call: resolve, check, dispatch, count."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

from predictd.server.config.units import format_duration
from predictd.server.control.message import Message
from predictd.server.control.messages import StatisticsRequest
from predictd.server.errors import (
    DeadlineError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
)
from predictd.server.frontend.calls import Answered, Call
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.failures import LaneGoneError
from predictd.server.frontend.gate import Gate
from predictd.server.frontend.handed import Handed, PutBackError
from predictd.server.frontend.heading import Heading
from predictd.server.frontend.inference import (
    DurationSum,
    InferRequest,
    InferResponse,
    LaneStatistics,
    ModelInfo,
    VersionInfo,
)
from predictd.server.frontend.order import ordered
from predictd.server.frontend.pending import Pending, Reply
from predictd.server.frontend.routing import Lane, LoadingError, Routes
from predictd.server.frontend.status import status_name
from predictd.server.frontend.uploads import Uploads
from predictd.server.observe.deltas import LaneStatisticsRow
from predictd.server.observe.recorder import FrontendRecorder

STATISTICS_TIMEOUT_SECONDS = 5.0

Send = Callable[[Message, list[int]], None]


class Service:
    """The Core of this front end (see `predictd.server.frontend.core`).

    Attributes:
        uploads: Reads requests.
        is_ready: The daemon as a whole is ready.
        draining: The daemon leaves; what comes is still served.
        refusing: What comes is refused.
        refused: How many requests were, for that reason.
    """

    def __init__(
        self,
        routes: Routes,
        dispatcher: Dispatcher,
        recorder: FrontendRecorder,
        send: Send,
        clients: ClientLimit,
        uploads: Uploads,
    ) -> None:
        self.uploads = uploads
        self._clients = clients
        self._gate = Gate(routes, dispatcher, recorder, clients)
        self._routes = routes
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._send = send
        self._sequence = itertools.count(1)
        self._statistics: dict[int, tuple[list[LaneStatisticsRow], asyncio.Future[None]]] = {}
        self.is_ready = False
        self.draining = False
        self.refusing = False
        self.refused = 0

    @property
    def ready(self) -> bool:
        """Every lane of the start-up configuration is warm, and the daemon does not drain."""
        return self.is_ready and not self.draining

    def models(self) -> Sequence[ModelInfo]:
        """All models by name."""
        return self._routes.models()

    def model(self, name: str) -> ModelInfo:
        """One model. Raises UnknownModelError."""
        return self._routes.model(name)

    def version(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """The version that would serve. Raises UnknownModelError or ModelUnavailableError."""
        return self._routes.version(name, version, label)

    def draw(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """The version for one request. Raises as `version` does."""
        lane = self._routes.lane(name, version, label)
        return self._routes.version(name, lane.version, None)

    def also_pressed(self, elsewhere: Callable[[], bool]) -> None:
        """Know who else refuses requests of this front end."""
        self._gate.pressed_elsewhere = elsewhere

    @property
    def pressed(self) -> bool:
        """See `Core`."""
        return self._gate.pressed

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a call at its headers. Raises OverloadedError."""
        self._gate.check_unread(heading, api, deadline_ns)

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a request at its heading. Raises OverloadedError."""
        self._gate.check_unparsed(heading, api, deadline_ns)

    async def infer(self, request: InferRequest, api: str, deadline_ns: int) -> InferResponse:
        """Answer a request. Raises RequestError."""
        accepted_ns = time.monotonic_ns()
        lane: Lane | None = None
        try:
            lane = self._routes.lane(request.model, request.version, request.label)
            self._recorder.accepted(lane.id, api)
            if self.refusing:
                self.refused += 1
                raise ModelUnavailableError("the server is shutting down")
            answer = self._in_time if self._timed(lane, request, deadline_ns) else self._wherever
            if self._clients.limited:
                with self._clients.request():
                    response = await answer(lane, request, deadline_ns, accepted_ns)
            else:
                response = await answer(lane, request, deadline_ns, accepted_ns)
        except BaseException as error:
            self.failed(lane, api, error, deadline_ns, accepted_ns)
            raise
        self._count(lane, api, response, accepted_ns)
        return response

    def begin(self, request: InferRequest, api: str, deadline_ns: int, reply: Reply) -> Pending | None:
        """Answer a request without a task that waits for it, where nothing but the answer is to be waited for."""
        pending = (
            None if self.refusing or self._clients.limited else self._sent(request, api, deadline_ns, reply)
        )
        if pending is None:
            reply.resume(self.infer(request, api, deadline_ns))
        return pending

    def _sent(self, request: InferRequest, api: str, deadline_ns: int, reply: Reply) -> Pending | None:
        """A request that was sent; None for one that was not, be it that it is refused."""
        accepted_ns = time.monotonic_ns()
        try:
            lane = self._routes.lane(request.model, request.version, request.label)
            if self._timed(lane, request, deadline_ns):
                return None
            order = ordered(lane, request, deadline_ns, accepted_ns)
            pending = Pending(self, request, lane, api, deadline_ns, accepted_ns, reply)
            call = self._dispatcher.begin(order, pending)
        except RequestError:
            return None
        if call is None:
            return None
        self._recorder.accepted(lane.id, api)
        if not pending.done():
            pending.call = call
        return pending

    def answered(self, lane: Lane, api: str, accepted_ns: int, answered: Answered) -> InferResponse:
        """The response to a request that `begin` sent."""
        response = _response(lane, answered)
        self._count(lane, api, response, accepted_ns)
        return response

    def abandoned(self, lane: Lane, api: str, deadline_ns: int, accepted_ns: int, call: Call) -> None:
        """The client of a request that `begin` sent is gone."""
        self._dispatcher.abandon(call)
        self._failed(lane, api, _status_of_cancellation(deadline_ns), accepted_ns)

    async def go_on(
        self,
        lane: Lane,
        request: InferRequest,
        api: str,
        deadline_ns: int,
        accepted_ns: int,
        gone: LaneGoneError,
    ) -> InferResponse:
        """Answer a request that `begin` sent to a lane that is gone. Raises RequestError."""
        try:
            other = await self._elsewhere(lane, request, gone)
            response = await self._wherever(
                other, request, deadline_ns, accepted_ns, gone.attempt, moved=True
            )
        except BaseException as error:
            self.failed(lane, api, error, deadline_ns, accepted_ns)
            raise
        finally:
            # If it is raised, it knows this frame.
            del gone
        self._count(lane, api, response, accepted_ns)
        return response

    def failed(
        self, lane: Lane | None, api: str, error: BaseException, deadline_ns: int, accepted_ns: int
    ) -> None:
        """Count a request that has no answer."""
        if lane is not None and isinstance(error, OverloadedError) and error.limit is not None:
            self._gate.press()
            self._recorder.shed(lane.id, error.limit)
        self._failed(lane, api, status_of(error, deadline_ns), accepted_ns)

    def _count(self, lane: Lane, api: str, response: InferResponse, accepted_ns: int) -> None:
        self._recorder.answered(
            lane.id,
            api,
            "OK",
            time.monotonic_ns() - accepted_ns,
            response.queue_ns,
            response.compute_ns,
            response.rows,
        )

    @staticmethod
    def _timed(lane: Lane, request: InferRequest, deadline_ns: int) -> int:
        """Nanoseconds that a request has by its own time-out or by its model's default; 0 for neither."""
        within_ns = lane.queues.of(request.priority).answer_within_ns(request.timeout_ns)
        return within_ns or (0 if deadline_ns else lane.config.default_deadline_ns)

    async def _in_time(
        self, lane: Lane, request: InferRequest, deadline_ns: int, accepted_ns: int
    ) -> InferResponse:
        """Answer a request within the time that it has."""
        within_ns = lane.queues.of(request.priority).answer_within_ns(request.timeout_ns)
        allowed_ns = within_ns or lane.config.default_deadline_ns
        by_ns = accepted_ns + allowed_ns
        try:
            async with asyncio.timeout(allowed_ns / 1e9):
                return await self._wherever(lane, request, min(deadline_ns or by_ns, by_ns), accepted_ns)
        except TimeoutError:
            raise DeadlineError(
                f"the request's time-out of {within_ns // 1000} µs passed"
                if within_ns
                else f"the default deadline of {format_duration(allowed_ns)} passed (default_deadline)"
            ) from None

    async def _wherever(
        self,
        lane: Lane,
        request: InferRequest,
        deadline_ns: int,
        accepted_ns: int,
        attempt: int = 0,
        *,
        moved: bool = False,
    ) -> InferResponse:
        """Answer a request, elsewhere if its lane goes, or gets another pool, while the request waits."""
        while True:
            order = ordered(lane, request, deadline_ns, accepted_ns, attempt, moved=moved)
            try:
                return _response(lane, await self._dispatcher.call(order))
            except LaneGoneError as gone:
                attempt, moved = gone.attempt, True
                lane = await self._elsewhere(lane, request, gone)

    async def resume(self, handed: Handed, api: str) -> InferResponse:
        """Bring a request to its end that was begun elsewhere, and is not accounted for. Raises RequestError."""
        self._recorder.accepted(handed.lane.id, api)
        try:
            response = await self._resumed(handed)
        except BaseException as error:
            self.failed(handed.lane, api, error, handed.deadline_ns, handed.accepted_ns)
            raise
        self._count(handed.lane, api, response, handed.accepted_ns)
        return response

    async def _resumed(self, handed: Handed) -> InferResponse:
        lane, request = handed.lane, handed.request
        attempt, moved = 0, False
        try:
            answered = handed.outcome()
        except LaneGoneError as gone:
            attempt, moved = gone.attempt, True
            lane = await self._elsewhere(lane, request, gone)
        except PutBackError as due:
            attempt, moved = due.attempt, True
            self._recorder.retried(lane.id)
        else:
            if answered is not None:
                return _response(lane, answered)
        return await self._wherever(
            lane, request, handed.deadline_ns, handed.accepted_ns, attempt, moved=moved
        )

    async def _elsewhere(self, lane: Lane, request: InferRequest, gone: LaneGoneError) -> Lane:
        """Where a request goes whose lane is not there any more, once that is ready.

        The supervisor publishes, soon if it has not yet, what becomes of a lane that no worker of its pool has: it
        moves to a pool of its own, another lane takes its place, or it has failed.

        Raises:
            LaneGoneError: `gone`, as there is nowhere to go.
        """
        while True:
            try:
                other = self._routes.lane(request.model, request.version, request.label)
            except LoadingError:
                other = lane
            except RequestError:
                raise gone from None
            if (other.id, other.pool) != (lane.id, lane.pool):
                self._recorder.retried(other.id)
                return other
            await self._routes.published()

    def _failed(self, lane: Lane | None, api: str, status: str, accepted_ns: int) -> None:
        if lane is None:
            self._recorder.accepted(None, api)
        self._recorder.failed(lane.id if lane else None, api, status, time.monotonic_ns() - accepted_ns)

    async def statistics(self) -> Sequence[LaneStatistics]:
        """What happened in each lane, over all processes.

        Raises:
            ModelUnavailableError: The supervisor does not answer.
        """
        seq = next(self._sequence)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rows: list[LaneStatisticsRow] = []
        self._statistics[seq] = (rows, done)
        self._send(StatisticsRequest(seq=seq), [])
        try:
            async with asyncio.timeout(STATISTICS_TIMEOUT_SECONDS):
                await done
        except TimeoutError:
            raise ModelUnavailableError("the statistics cannot be had now") from None
        finally:
            del self._statistics[seq]
        return [_statistics(row) for row in rows]

    def on_statistics(self, seq: int, rows: list[LaneStatisticsRow], *, last: bool) -> None:
        """A part of the supervisor's answer."""
        waiting = self._statistics.get(seq)
        if waiting is None:
            return
        waiting[0].extend(rows)
        if last and not waiting[1].done():
            waiting[1].set_result(None)


def status_of(error: BaseException, deadline_ns: int) -> str:
    """The status of a request that has no answer."""
    if isinstance(error, RequestError):
        return status_name(error)
    if isinstance(error, asyncio.CancelledError):
        return _status_of_cancellation(deadline_ns)
    return "INTERNAL"


def _status_of_cancellation(deadline_ns: int) -> str:
    """The status of a call that was cancelled: gRPC cancels those whose deadline has passed."""
    return "DEADLINE_EXCEEDED" if 0 < deadline_ns <= time.monotonic_ns() else "CANCELLED"


def _response(lane: Lane, answered: Answered) -> InferResponse:
    return InferResponse(
        lane.model,
        lane.version,
        answered.outputs,
        answered.queue_ns,
        answered.compute_ns,
        answered.batch_rows,
        answered.rows,
    )


def _statistics(row: LaneStatisticsRow) -> LaneStatistics:
    return LaneStatistics(
        model=row.model,
        version=row.version,
        last_inference_ms=row.last_inference_ms,
        inference_count=row.inference_count,
        execution_count=row.execution_count,
        success=DurationSum(row.success.count, row.success.ns),
        fail=DurationSum(row.fail.count, row.fail.ns),
        queue=DurationSum(row.queue.count, row.queue.ns),
        compute_infer=DurationSum(row.compute.count, row.compute.ns),
        batches={rows: DurationSum(one.count, one.ns) for rows, one in row.batches.items()},
    )
