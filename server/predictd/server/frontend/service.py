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
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
)
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.failures import LaneGoneError
from predictd.server.frontend.gate import Gate
from predictd.server.frontend.heading import Heading
from predictd.server.frontend.inference import (
    DurationSum,
    InferRequest,
    InferResponse,
    LaneStatistics,
    ModelInfo,
    VersionInfo,
)
from predictd.server.frontend.routing import Lane, LoadingError, Routes
from predictd.server.frontend.status import status_name
from predictd.server.frontend.uploads import Uploads
from predictd.server.observe.deltas import LaneStatisticsRow
from predictd.server.observe.recorder import FrontendRecorder

STATISTICS_TIMEOUT_SECONDS = 5.0
_SELECTIONS_KEPT = 1024

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
            with self._clients.request():
                response = await self._in_time(lane, request, deadline_ns, accepted_ns)
        except RequestError as error:
            if lane is not None and isinstance(error, OverloadedError) and error.limit is not None:
                self._gate.press()
                self._recorder.shed(lane.id, error.limit)
            self._failed(lane, api, status_name(error), accepted_ns)
            raise
        except asyncio.CancelledError:
            self._failed(lane, api, status_of_cancellation(deadline_ns), accepted_ns)
            raise
        except Exception:
            self._failed(lane, api, "INTERNAL", accepted_ns)
            raise
        self._recorder.answered(
            lane.id,
            api,
            "OK",
            time.monotonic_ns() - accepted_ns,
            response.queue_ns,
            response.compute_ns,
            response.rows,
        )
        return response

    async def _in_time(
        self, lane: Lane, request: InferRequest, deadline_ns: int, accepted_ns: int
    ) -> InferResponse:
        """Answer a request within the time that it has by its own time-out, or by its model's default."""
        within_ns = lane.queues.of(request.priority).answer_within_ns(request.timeout_ns)
        default_ns = 0 if deadline_ns or within_ns else lane.config.default_deadline_ns
        allowed_ns = within_ns or default_ns
        if not allowed_ns:
            return await self._wherever(lane, request, deadline_ns, accepted_ns)
        by_ns = accepted_ns + allowed_ns
        try:
            async with asyncio.timeout(allowed_ns / 1e9):
                return await self._wherever(lane, request, min(deadline_ns or by_ns, by_ns), accepted_ns)
        except TimeoutError:
            raise DeadlineError(
                f"the request's time-out of {within_ns // 1000} µs passed"
                if within_ns
                else f"the default deadline of {format_duration(default_ns)} passed (default_deadline)"
            ) from None

    async def _wherever(
        self, lane: Lane, request: InferRequest, deadline_ns: int, accepted_ns: int
    ) -> InferResponse:
        """Answer a request, elsewhere if its lane goes, or gets another pool, while the request waits."""
        attempt, moved = 0, False
        while True:
            try:
                return await self._infer(lane, request, deadline_ns, accepted_ns, attempt, moved=moved)
            except LaneGoneError as gone:
                attempt, moved = gone.attempt, True
                lane = await self._elsewhere(lane, request, gone)

    async def _infer(
        self,
        lane: Lane,
        request: InferRequest,
        deadline_ns: int,
        accepted_ns: int,
        attempt: int,
        *,
        moved: bool,
    ) -> InferResponse:
        admission = lane.inputs.admit(request.inputs)
        wanted = _selection(lane, request.outputs)
        lane.answer_limit.expect(wanted, admission.layout.rows)
        queue = lane.queues.of(request.priority)
        queue.asked_ns = accepted_ns
        patience_ns = queue.patience_ns(request.timeout_ns)
        answered = await self._dispatcher.call(
            lane,
            admission,
            request.inputs,
            wanted,
            queue,
            deadline_ns,
            accepted_ns,
            patience_ns,
            attempt,
            moved=moved,
        )
        return InferResponse(
            model=lane.model,
            version=lane.version,
            outputs=answered.outputs,
            queue_ns=answered.queue_ns,
            compute_ns=answered.compute_ns,
            batch_rows=answered.batch_rows,
            rows=admission.layout.rows,
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


def status_of_cancellation(deadline_ns: int) -> str:
    """The status of a call that was cancelled: gRPC cancels those whose deadline has passed."""
    return "DEADLINE_EXCEEDED" if 0 < deadline_ns <= time.monotonic_ns() else "CANCELLED"


def _selection(lane: Lane, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the outputs that are asked for: all of them when none is named."""
    key = tuple(names)
    selection = lane.selections.get(key)
    if selection is None:
        selection = _select(lane, key)
        if len(lane.selections) >= _SELECTIONS_KEPT:
            lane.selections.clear()
        lane.selections[key] = selection
    return selection


def _select(lane: Lane, names: tuple[str, ...]) -> tuple[int, ...]:
    if not names:
        return tuple(range(len(lane.output_names)))
    for name in names:
        if name not in lane.output_names:
            known = ", ".join(f"'{output}'" for output in lane.output_names)
            raise InvalidRequestError(f"unknown output '{name}' of model '{lane.model}'; it gives {known}")
        if names.count(name) > 1:
            raise InvalidRequestError(f"output '{name}' of model '{lane.model}' is asked for twice")
    return tuple(lane.output_names.index(name) for name in names)


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
