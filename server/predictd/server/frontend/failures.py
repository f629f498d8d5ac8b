"""What a request is told when there is no answer to it."""

from __future__ import annotations

from predictd.server.config.units import format_duration
from predictd.server.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
)
from predictd.server.frontend.calls import Call
from predictd.server.frontend.routing import Lane
from predictd.server.transport.records import Status


class LaneGoneError(ModelUnavailableError):
    """The version that was to answer is served no more. Another one may, if the request does not name this one.

    Attributes:
        attempt: How often the request was running in a worker that died.
    """

    def __init__(self, message: str, attempt: int = 0) -> None:
        super().__init__(message)
        self.attempt = attempt


def full(lane: Lane) -> OverloadedError:
    """Why a request is refused whose queue has no room."""
    return OverloadedError(f"the queue of model '{lane.model}' is full (max_queue_size)")


def too_late(call: Call) -> DeadlineError:
    """Why a request that waited in vain is refused."""
    model = call.lane.model
    if call.deadline_ns >= call.answer_by_ns:
        return DeadlineError(f"the deadline passed while the request to model '{model}' waited in its queue")
    return DeadlineError(
        f"the request to model '{model}' waited longer than {format_duration(call.patience_ns)} in its queue"
    )


def failure(status: Status, call: Call, text: str) -> RequestError:
    """The error that a completion's status stands for."""
    model = call.lane.model
    match status:
        case Status.INVALID_INPUT:
            return InvalidRequestError(f"model '{model}' cannot run on these inputs: {text}")
        case Status.NO_MEMORY:
            return OverloadedError(
                f"no memory for the answer of model '{model}': {text or 'the arena is full'}"
            )
        case Status.UNKNOWN_LANE:
            return LaneGoneError(f"model '{model}' is not served by this worker; try again", call.attempt)
        case _:
            return InferenceError(f"model '{model}' failed: {text or 'the engine failed'}")
