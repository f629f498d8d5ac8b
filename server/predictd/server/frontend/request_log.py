"""Log lines of requests: a sample, or some of each second. What was sent and answered is in none of them.

Only a front end that has such a log uses anything of this, so that all others pay nothing.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from predictd.server.config.request_log import RequestLogRule
from predictd.server.errors import OverloadedError
from predictd.server.frontend.access import caller_name
from predictd.server.frontend.clients import Noting
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.service import Send, Service, status_of
from predictd.server.frontend.uploads import Uploads
from predictd.server.observe.logs import REQUESTS

if TYPE_CHECKING:
    from predictd.server.frontend.clients import ClientLimit
    from predictd.server.frontend.handed import Handed
    from predictd.server.frontend.heading import Heading
    from predictd.server.frontend.inference import InferRequest, InferResponse
    from predictd.server.frontend.pending import Reply
    from predictd.server.frontend.routing import Routes
    from predictd.server.observe.recorder import FrontendRecorder

# W3C Trace Context: version, trace id, span id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_NO_TRACE = "0" * 32

_log = logging.getLogger(REQUESTS)
_call: ContextVar[Any] = ContextVar("call", default=None)


class NotedCalls(Noting):
    """Notes for each call what a line may need of it, and reads none of it before there is a line."""

    def __init__(self) -> None:
        super().__init__(note_call)


class Sampler:
    """Decides which requests have a line. Keeps no clock.

    Args:
        rule: What is wanted.
        draw: A number from 0 to 1, 1 excluded.
    """

    def __init__(self, rule: RequestLogRule, draw: Callable[[], float] = random.random) -> None:
        self._rule = rule
        self._draw = draw
        self._budget = self._budget_max = max(rule.per_second, 1.0)
        self._filled_seconds = 0.0

    def takes(self, now_seconds: float) -> bool:
        """Whether the request that ends now has a line."""
        if not self._rule.per_second:
            return self._draw() < self._rule.fraction
        gained = (now_seconds - self._filled_seconds) * self._rule.per_second
        self._budget = min(self._budget + gained, self._budget_max)
        self._filled_seconds = now_seconds
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def takes_drawn(self, now_seconds: float) -> bool:
        """The same for one that was drawn elsewhere, where the others of this process are not known."""
        return not self._rule.per_second or self.takes(now_seconds)


class LoggedService(Service):
    """A service that logs requests."""

    def __init__(
        self,
        routes: Routes,
        dispatcher: Dispatcher,
        recorder: FrontendRecorder,
        send: Send,
        clients: ClientLimit,
        uploads: Uploads,
        rule: RequestLogRule,
    ) -> None:
        super().__init__(routes, dispatcher, recorder, send, clients, uploads)
        self.rule = rule
        self._sampler = Sampler(rule)

    # typing.override needs Python 3.12.
    async def infer(  # type: ignore[explicit-override]
        self, request: InferRequest, api: str, deadline_ns: int
    ) -> InferResponse:
        answer = super().infer(request, api, deadline_ns)
        return await self._logged(answer, request, api, deadline_ns, time.monotonic_ns())

    async def resume(self, handed: Handed, api: str) -> InferResponse:  # type: ignore[explicit-override]
        answer = super().resume(handed, api)
        return await self._logged(answer, handed.request, api, handed.deadline_ns, handed.accepted_ns)

    async def _logged(
        self,
        answer: Awaitable[InferResponse],
        request: InferRequest,
        api: str,
        deadline_ns: int,
        start_ns: int,
    ) -> InferResponse:
        """An answer, or what is raised instead, with a line about it."""
        try:
            response = await answer
        except BaseException as error:
            self._failed_request(request, api, status_of(error, deadline_ns), start_ns)
            raise
        if self._sampler.takes(time.monotonic()):
            _write(
                api,
                "OK",
                _seconds_since(start_ns),
                **_of_call(),
                model=response.model,
                version=response.version,
                request_id=request.id,
                rows=response.rows,
                batch_rows=response.batch_rows,
                queue_seconds=response.queue_ns / 1e9,
                compute_seconds=response.compute_ns / 1e9,
            )
        return response

    def ended(
        self,
        context: Any,
        caller: str,
        api: str,
        status: str,
        duration_seconds: float,
        fields: Mapping[str, str | float | None],
    ) -> None:
        """Log a request that ended elsewhere, and was drawn there.

        Args:
            context: Of its call.
            caller: Who made that.
            api: The protocol's name.
            status: The gRPC status code's name.
            duration_seconds: From its arrival to its end.
            fields: What else the line has.
        """
        if self._sampler.takes_drawn(time.monotonic()):
            _write(api, status, duration_seconds, **_about(context, caller), **fields)

    def begin(  # type: ignore[explicit-override]
        self, request: InferRequest, api: str, deadline_ns: int, reply: Reply
    ) -> None:
        reply.resume(self.infer(request, api, deadline_ns))

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:  # type: ignore[explicit-override]
        start_ns = time.monotonic_ns()
        try:
            super().check_unread(heading, api, deadline_ns)
        except OverloadedError as error:
            self._failed_request(heading, api, status_of(error, deadline_ns), start_ns)
            raise

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:  # type: ignore[explicit-override]
        start_ns = time.monotonic_ns()
        try:
            super().check_unparsed(heading, api, deadline_ns)
        except OverloadedError as error:
            self._failed_request(heading, api, status_of(error, deadline_ns), start_ns)
            raise

    def _failed_request(self, request: InferRequest | Heading, api: str, status: str, start_ns: int) -> None:
        if self._sampler.takes(time.monotonic()):
            _write(
                api,
                status,
                _seconds_since(start_ns),
                **_of_call(),
                model=request.model,
                version=request.version,
                label=request.label,
                request_id=request.id,
            )


def _seconds_since(start_ns: int) -> float:
    return (time.monotonic_ns() - start_ns) / 1e9


def _write(api: str, status: str, duration_seconds: float, **fields: str | float | None) -> None:
    about = {"api": api, "status": status, "duration_seconds": duration_seconds, **fields}
    _log.info("request", extra={name: value for name, value in about.items() if value not in (None, "")})


def note_call(context: Any) -> None:
    """Have the present call be this one."""
    _call.set(context)


def _of_call() -> dict[str, str]:
    """What the present call says of itself beside its request."""
    context = _call.get()
    return {} if context is None else _about(context, caller_name())


def _about(context: Any, caller: str) -> dict[str, str]:
    return {"client": unquote(context.peer()), "caller": caller, **ids(context.invocation_metadata() or ())}


def ids(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The ids that a call's metadata carry: of its trace, and what proxies name it by."""
    found: dict[str, str] = {}
    for key, value in metadata:
        if not isinstance(value, str):
            continue
        if key == "traceparent" and (match := _TRACEPARENT.fullmatch(value)) and match[1] != _NO_TRACE:
            found["trace_id"] = match[1]
        elif key == "x-request-id":
            found["x_request_id"] = value
    return found
