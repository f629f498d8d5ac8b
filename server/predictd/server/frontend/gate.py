"""Refusing a request before it costs anything: before its bytes are received, or before they are parsed.

gRPC hands a call over when its headers are there, and lets a client send no more than a window of 64 KiB until
somebody reads. So a call that is ended at its headers costs a fraction of one whose message was received, parsed and
then refused: with 600 KB a request that is the difference between a server that is busy refusing and one that works.

At the headers is known how long the client waits, and, if it says so, for which model and with which priority. Without
that a call is ended only if every queue that it could mean would refuse it. All this is looked at for a while after a
request was refused in the usual way; until then a call pays for one comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from predictd.server.errors import OverloadedError, RequestError
from predictd.server.frontend.status import status_name

if TYPE_CHECKING:
    from predictd.server.frontend.clients import ClientLimit
    from predictd.server.frontend.dispatch import Dispatcher
    from predictd.server.frontend.heading import Heading
    from predictd.server.frontend.routing import Lane, Routes
    from predictd.server.frontend.waiting import LaneQueue
    from predictd.server.observe.recorder import FrontendRecorder

PRESSED_NS = 10**9
# With more lanes than this it takes too long to ask each of them, and one that is idle is likely.
LANES_ASKED_MAX = 16
# Of the calls that do not say what they are for, so many are refused for one that is received and looked at: it may be
# of a priority that would have been served.
REFUSED_FOR_ONE_SEEN = 15


class Gate:
    """Decides at a call's headers, and at its bytes, whether it can be refused now. Runs on the event loop alone.

    Attributes:
        pressed_elsewhere: Whether the front end's other half has refused requests lately.
    """

    def __init__(
        self, routes: Routes, dispatcher: Dispatcher, recorder: FrontendRecorder, clients: ClientLimit
    ) -> None:
        self._routes = routes
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._clients = clients
        self._pressed_until_ns = 0
        self.pressed_elsewhere: Callable[[], bool] = _never
        self._unseen = 0

    @property
    def pressed(self) -> bool:
        """Requests were refused lately, or clients have limits: the other methods may refuse."""
        return (
            self._clients.limited or time.monotonic_ns() < self._pressed_until_ns or self.pressed_elsewhere()
        )

    def press(self) -> None:
        """A request was refused because there is too much to do."""
        self._pressed_until_ns = time.monotonic_ns() + PRESSED_NS

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a call of which only the headers have come, if its request would be.

        Args:
            heading: What is known of it.
            api: The protocol's name.
            deadline_ns: Its own, 0 for none.

        Raises:
            OverloadedError: There is no point in receiving it.
        """
        start_ns = time.monotonic_ns()
        lanes = self._routes.candidates(heading.model)
        if not lanes or len(lanes) > LANES_ASKED_MAX:
            return
        self._check(lanes, heading, api, deadline_ns, start_ns)

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a request of which only the heading was read. Arguments and exceptions as of `check_unread`."""
        start_ns = time.monotonic_ns()
        try:
            lane = self._routes.lane(heading.model, heading.version, heading.label)
        except RequestError:
            return
        for queue in _queues(lane, heading.priority, start_ns):
            queue.asked_ns = start_ns
        self._check((lane,), heading, api, deadline_ns, start_ns)

    def _check(
        self, lanes: Iterable[Lane], heading: Heading, api: str, deadline_ns: int, start_ns: int
    ) -> None:
        try:
            self._clients.check()
            refusal = self._refusal(lanes, heading, deadline_ns, start_ns)
            if refusal is None or (heading.priority is None and self._shall_see()):
                return
        except OverloadedError as error:
            refusal = error.with_traceback(None)
        self.press()
        only, *others = lanes
        lane = None if others else only.id
        self._recorder.accepted(lane, api)
        if lane is not None and refusal.limit is not None:
            self._recorder.shed(lane, refusal.limit)
        self._recorder.failed(lane, api, status_name(refusal), time.monotonic_ns() - start_ns)
        try:
            raise refusal
        finally:
            # It knows this frame, which must not know it: such a ring lives until the next full collection.
            del refusal

    def _refusal(
        self, lanes: Iterable[Lane], heading: Heading, deadline_ns: int, now_ns: int
    ) -> OverloadedError | None:
        """The mildest of what all queues would say, None if one of them would take the request."""
        mildest: OverloadedError | None = None
        for lane in lanes:
            for queue in _queues(lane, heading.priority, now_ns):
                try:
                    self._dispatcher.check(lane, queue, heading.size_bytes, deadline_ns)
                except OverloadedError as error:
                    if mildest is None or error.retry_after_seconds < mildest.retry_after_seconds:
                        mildest = error.with_traceback(None)
                else:
                    return None
        return mildest

    def _shall_see(self) -> bool:
        self._unseen = (self._unseen + 1) % (REFUSED_FOR_ONE_SEEN + 1)
        return not self._unseen


def _never() -> bool:
    return False


def _queues(lane: Lane, priority: int | None, now_ns: int) -> Iterable[LaneQueue]:
    return lane.queues.likely(now_ns) if priority is None else (lane.queues.of(priority),)
