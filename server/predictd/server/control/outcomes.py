"""How the failure of a command travels from the supervisor to the front end that asked for it."""

from __future__ import annotations

from collections.abc import Mapping

from predictd.server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestError,
    UnknownModelError,
)

_KINDS: Mapping[str, type[RequestError]] = {
    "NOT_FOUND": UnknownModelError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "UNAVAILABLE": ModelUnavailableError,
    "FAILED_PRECONDITION": FailedPreconditionError,
}
_STATUSES = {kind: status for status, kind in _KINDS.items()}


def status_of(error: RequestError) -> str:
    """The word for a failure, as CommandDone carries it."""
    return _STATUSES[type(error)]


def failure(status: str, message: str) -> RequestError:
    """The failure that a word stands for."""
    return _KINDS[status](message)
