"""The one place where a failure becomes a gRPC status code."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc import StatusCode

from predictd.server import errors
from predictd.server.frontend.rich_status import STATUS_DETAILS, with_retry_info
from predictd.server.observe.error_ids import ErrorIds, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)
_errors = ErrorIds()

_CODES: Mapping[type[errors.RequestError], StatusCode] = {
    errors.RequestError: StatusCode.INTERNAL,
    errors.InvalidRequestError: StatusCode.INVALID_ARGUMENT,
    errors.UnknownModelError: StatusCode.NOT_FOUND,
    errors.ModelUnavailableError: StatusCode.UNAVAILABLE,
    errors.FailedPreconditionError: StatusCode.FAILED_PRECONDITION,
    errors.UnauthenticatedError: StatusCode.UNAUTHENTICATED,
    errors.ForbiddenError: StatusCode.PERMISSION_DENIED,
    errors.UnsupportedError: StatusCode.UNIMPLEMENTED,
    errors.OverloadedError: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: StatusCode.DEADLINE_EXCEEDED,
    errors.CancelledError: StatusCode.CANCELLED,
    errors.InferenceError: StatusCode.INTERNAL,
}
_SAME: Mapping[type[errors.RequestError], StatusCode] = {}

# Read by the retry policy of gRPC clients (gRFC A6): milliseconds to wait before the next attempt.
_PUSHBACK = "grpc-retry-pushback-ms"
# A message travels percent-encoded in a trailer, at worst three bytes for one, and clients accept 8 KiB of
# trailers: a longer message would replace the status by a broken call.
_MESSAGE_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Failure:
    """What a client is told.

    Attributes:
        code: The status code.
        message: The status message.
        trailers: Trailing metadata.
        retry_after_seconds: What they say of another try.
    """

    code: StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    retry_after_seconds: float | None = None


class StatusTable:
    """Maps failures to what clients of one protocol are told.

    Args:
        overrides: The errors for which the protocol's own table has another code.
    """

    def __init__(self, overrides: Mapping[type[errors.RequestError], StatusCode] = _SAME) -> None:
        self._codes = {**_CODES, **overrides}

    def failure(self, error: Exception) -> Failure:
        """Describe a failure.

        What is not a RequestError is a bug: it is logged, and the client learns only the id of the log entry.
        """
        if not isinstance(error, errors.RequestError):
            return Failure(StatusCode.INTERNAL, f"internal error {_report(error, time.monotonic())}")
        code = next(self._codes[kind] for kind in type(error).__mro__ if kind in self._codes)
        trailers: tuple[tuple[str, str | bytes], ...] = ()
        retry_after_seconds: float | None = None
        if isinstance(error, errors.OverloadedError):
            retry_after_seconds = error.retry_after_seconds
            trailers = (
                (_PUSHBACK, str(math.ceil(error.retry_after_seconds * 1000))),
                (STATUS_DETAILS, with_retry_info(code, _shorten(str(error)), error.retry_after_seconds)),
            )
        return Failure(code, _shorten(str(error)), trailers, retry_after_seconds)


def _report(error: Exception, now_seconds: float) -> str:
    """Log an internal error. Gives the id of the entry that explains it."""
    told = _errors.id_of(place_of(error), now_seconds)
    if told.new:
        extra: dict[str, str | int] = {"error_id": told.id}
        if told.repeated:
            extra["repeated"] = told.repeated
        _log.error("internal error %s", told.id, exc_info=error, extra=extra)
    return told.id


def status_name(error: errors.RequestError) -> str:
    """The status code's name, as metrics label it."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES).name


def _shorten(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= _MESSAGE_BYTES_MAX:
        return message
    return encoded[:_MESSAGE_BYTES_MAX].decode(errors="ignore") + "…"
