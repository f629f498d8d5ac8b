"""A request under way without a task that waits for it: whoever reads its completion hands the answer on.

A task of its own would cost a message of a stream more than all else that is done for it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from predictd.server.frontend.failures import LaneGoneError

if TYPE_CHECKING:
    from predictd.server.frontend.calls import Answered, Call
    from predictd.server.frontend.inference import InferRequest, InferResponse
    from predictd.server.frontend.routing import Lane
    from predictd.server.frontend.service import Service


class Reply(Protocol):
    """Where the answer to a request goes. One of the methods is called, once; none raises."""

    def answer(self, response: InferResponse) -> None:
        """This is it."""

    def fail(self, error: Exception) -> None:
        """There is none."""

    def resume(self, response: Coroutine[Any, Any, InferResponse]) -> None:
        """It takes more than a wait: run this."""


class Pending:
    """The receiver of a call.

    Args:
        service: Counts, and knows where else to go.
        request: As decoded.
        lane: Of the request.
        api: The protocol's name.
        deadline_ns: Its own, 0 for none.
        accepted_ns: When it came.
        reply: Gets the answer.

    Attributes:
        call: Its call, until it has an answer.
    """

    __slots__ = ("_accepted_ns", "_api", "_deadline_ns", "_lane", "_reply", "_request", "_service", "call")

    def __init__(
        self,
        service: Service,
        request: InferRequest,
        lane: Lane,
        api: str,
        deadline_ns: int,
        accepted_ns: int,
        reply: Reply,
    ) -> None:
        self._service = service
        self._request = request
        self._lane = lane
        self._api = api
        self._deadline_ns = deadline_ns
        self._accepted_ns = accepted_ns
        self._reply: Reply | None = reply
        self.call: Call | None = None

    def done(self) -> bool:
        """Whether there was an answer, or nobody waits for one."""
        return self._reply is None

    def set_result(self, answered: Answered) -> None:
        """The answer is here."""
        if reply := self._take_reply():
            reply.answer(self._service.answered(self._lane, self._api, self._accepted_ns, answered))

    def set_exception(self, error: Exception) -> None:
        """There is no answer, at least not from where the request was sent."""
        reply = self._take_reply()
        if reply is None:
            return
        if isinstance(error, LaneGoneError):
            reply.resume(
                self._service.go_on(
                    self._lane, self._request, self._api, self._deadline_ns, self._accepted_ns, error
                )
            )
            return
        self._service.failed(self._lane, self._api, error, self._deadline_ns, self._accepted_ns)
        reply.fail(error)

    def abandon(self) -> None:
        """The client is gone."""
        call = self.call
        if self._take_reply() is not None and call is not None:
            self._service.abandoned(self._lane, self._api, self._deadline_ns, self._accepted_ns, call)

    def _take_reply(self) -> Reply | None:
        """Where the answer goes, once."""
        reply, self._reply = self._reply, None
        self.call = None
        return reply
