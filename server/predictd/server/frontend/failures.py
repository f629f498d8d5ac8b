"""What a request is told when there is no answer to it."""

from __future__ import annotations

import time

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
from predictd.server.frontend.expectation import Expectation
from predictd.server.frontend.routing import Lane
from predictd.server.transport.records import NO_DEADLINE_NS, Status

# What a client is told that asks a full queue of which nothing else is known.
_RETRY_AFTER_SECONDS = 0.1
_RETRY_AFTER_SECONDS_MAX = 10.0


class LaneGoneError(ModelUnavailableError):
    """The version that was to answer is served no more. Another one may, if the request does not name this one.

    Attributes:
        attempt: How often the request was running in a worker that died.
    """

    def __init__(self, message: str, attempt: int = 0) -> None:
        super().__init__(message)
        self.attempt = attempt


def full(lane: Lane, wait_ns: int = 0) -> OverloadedError:
    """Why a request is refused whose queue has no room.

    Args:
        lane: Of the request.
        wait_ns: How long it would have to wait there; 0 if that is not known.
    """
    return OverloadedError(
        f"the queue of model '{lane.model}' is full (max_queue_size)", _retry_after(wait_ns), "queue_size"
    )


def crowded(lane: Lane, pool: str, wait_ns: int) -> OverloadedError:
    """Why a request is refused for which there is room that is left to other models."""
    return OverloadedError(
        f"model '{lane.model}' has its share of the queue of pool '{pool}' (max_queue_size)",
        _retry_after(wait_ns),
        "queue_size",
    )


def too_heavy(lane: Lane, size_bytes: int, wait_ns: int) -> OverloadedError:
    """Why a request is refused for whose bytes its queue has no room."""
    return OverloadedError(
        f"the queue of model '{lane.model}' has no room for {size_bytes} bytes (max_queue_bytes)",
        _retry_after(wait_ns),
        "queue_bytes",
    )


def check_wait(lane: Lane, known: Expectation, ahead: int, deadline_ns: int) -> int:
    """How long a request is expected to wait.

    Args:
        lane: Of the request.
        known: What is known of its queue.
        ahead: Requests that are before it.
        deadline_ns: Its own, 0 for none.

    Raises:
        OverloadedError: It is not expected to be answered by its deadline.
    """
    now_ns = time.monotonic_ns()
    wait_ns = known.wait_ns(ahead, now_ns)
    left_ns = deadline_ns - now_ns
    if deadline_ns and (excess_ns := known.excess_ns(ahead, left_ns, now_ns)):
        raise expected_too_late(lane, left_ns, excess_ns)
    return wait_ns


def expected_too_late(lane: Lane, left_ns: int, excess_ns: int) -> OverloadedError:
    """Why a request is refused that would be answered too late.

    Args:
        lane: Of the request.
        left_ns: Until its deadline.
        excess_ns: How long after that its answer is expected.
    """
    return OverloadedError(
        f"an answer of model '{lane.model}' is expected in {_about(left_ns + excess_ns)}, "
        f"and the deadline of the request is in {_about(left_ns)}",
        excess_ns / 1e9,
        "expected_wait",
    )


def _about(ns: int) -> str:
    return f"{max(ns, 0) / 1e6:.0f} ms"


def _retry_after(wait_ns: int) -> float:
    """By then a good part of the queue is gone."""
    return min(wait_ns / 4e9, _RETRY_AFTER_SECONDS_MAX) if wait_ns else _RETRY_AFTER_SECONDS


def poison(lane: Lane) -> InferenceError:
    """Why a request is not tried again that was running in two workers that died."""
    return InferenceError(
        f"the request crashes the engine of model '{lane.model}' or takes it longer than run_timeout; "
        "it is not tried again"
    )


def too_late(call: Call, now_ns: int) -> DeadlineError:
    """Why a request that waited in vain is refused."""
    model = call.lane.model
    if now_ns < call.answer_by_ns == call.deadline_ns != NO_DEADLINE_NS:
        return DeadlineError(
            f"the deadline of the request to model '{model}' is too near: a run would end after it"
        )
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
            return LaneGoneError(
                f"the version of model '{model}' that was to answer is served no more", call.attempt
            )
        case _:
            return InferenceError(f"model '{model}' failed: {text or 'the engine failed'}")
