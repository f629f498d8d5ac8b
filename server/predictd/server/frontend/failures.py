"""What a request is told when there is no answer to it."""

from __future__ import annotations

from predictd.server.config.units import format_duration
from predictd.server.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    LaneMovedError,
    OverloadedError,
    RequestError,
)
from predictd.server.frontend.calls import Call
from predictd.server.frontend.routing import Lane
from predictd.server.transport.records import Status


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


def moved(call: Call) -> LaneMovedError:
    """Why a request was not run whose worker does not serve its lane any more."""
    message = f"model '{call.lane.model}' is not served by this worker; try again"
    return LaneMovedError(message, call.attempt)


def failure(status: Status, model: str, text: str) -> RequestError:
    """The error that a completion's status stands for."""
    match status:
        case Status.INVALID_INPUT:
            return InvalidRequestError(f"model '{model}' cannot run on these inputs: {text}")
        case Status.NO_MEMORY:
            return OverloadedError(
                f"no memory for the answer of model '{model}': {text or 'the arena is full'}"
            )
        case _:
            return InferenceError(f"model '{model}' failed: {text or 'the engine failed'}")
