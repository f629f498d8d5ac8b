"""Requests that were begun elsewhere: by the other half of this front end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from predictd.server.frontend.calls import Answered
from predictd.server.frontend.inference import InferRequest
from predictd.server.frontend.routing import Lane


class PutBackError(Exception):
    """A request is to be sent again: its ticket died with a worker.

    Attributes:
        attempt: How often it was running in a worker that died.
    """

    def __init__(self, attempt: int) -> None:
        super().__init__(attempt)
        self.attempt = attempt


@dataclass(frozen=True, slots=True)
class Handed:
    """A request that was begun elsewhere.

    Attributes:
        lane: That it was for.
        request: As decoded.
        deadline_ns: Its own, 0 for none.
        accepted_ns: When it came.
        outcome: Gives what came of it, an answer or None for nothing, or raises why there is no answer. Called once,
            before anything waits.
    """

    lane: Lane
    request: InferRequest
    deadline_ns: int
    accepted_ns: int
    outcome: Callable[[], Answered | None]
