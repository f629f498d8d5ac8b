"""What can go wrong with a request, as typed exceptions.

An argument that cannot be sent at all (an array of complex numbers, version and label together) is a plain
`TypeError` or `ValueError`; everything that the daemon or the connection answers is a `PredictdError`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import grpc

from predictd.client import tls, wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from predictd.protos.v1 import predictd_pb2 as v1

# What grpc.aio says in place of a status that comes while it sends.
_SEND_FAILED = "Internal error from Core"
_PUSHBACK = "grpc-retry-pushback-ms"
_DETAILS = "grpc-status-details-bin"


class PredictdError(Exception):
    """A request that was not answered. Base of the family.

    Attributes:
        message: What the daemon said; names the input, what was expected and what came.
        code: The gRPC status behind it.
        retry_after_seconds: When the server thinks that another try may succeed; None if it did not say, infinite if
            it asks not to try again.
    """

    retry_after_seconds: float | None = None

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InvalidRequestError(PredictdError):
    """The request contradicts the model's signature or the protocol. It will never be answered."""


class NotFoundError(PredictdError):
    """No such model, version or label."""


class UnavailableError(PredictdError):
    """The daemon cannot be reached, or the model is loading, failed or draining."""


class TlsError(UnavailableError):
    """No encrypted connection comes about: the certificates of the two sides do not fit. Waiting does not help."""


class UnauthenticatedError(PredictdError):
    """The daemon does not know who asks: there is no token, or one that does not hold."""


class PermissionDeniedError(PredictdError):
    """Who asks is known, and may not."""


class OverloadedError(PredictdError):
    """A queue or the daemon's memory is full."""


class DeadlineExceededError(PredictdError):
    """No answer came in time."""


class UnsupportedError(PredictdError):
    """The daemon does not have this call or option."""


class RequestCancelledError(PredictdError):
    """The request was given up before it was answered."""


class InternalError(PredictdError):
    """The model failed on this request, or daemon and client do not understand each other."""


_BY_CODE: dict[grpc.StatusCode, type[PredictdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.CANCELLED: RequestCancelledError,
    grpc.StatusCode.INTERNAL: InternalError,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(code: grpc.StatusCode, message: str) -> PredictdError:
    """Return the exception for a gRPC status."""
    return _BY_CODE.get(code, PredictdError)(message, code)


def from_number(number: int, message: str) -> PredictdError:
    """Return the exception for a status that travels as a number inside a message."""
    return from_status(_CODES.get(number, grpc.StatusCode.UNKNOWN), message)


def from_message(message: v1.Error) -> PredictdError:
    """Return the exception for an error inside a stream."""
    if message.code == grpc.StatusCode.OK.value[0]:
        return unreadable("an error without a status")
    failure = from_number(message.code, message.message)
    if message.HasField("retry_after_ns"):
        failure.retry_after_seconds = message.retry_after_ns / 1e9
    return failure


def too_late(seconds: float) -> DeadlineExceededError:
    """The exception of a request whose deadline, of so many seconds, has passed; the client alone noticed."""
    what = (
        f"no answer came for {seconds:.3g} s" if seconds > 0 else f"a deadline of {seconds:.3g} s has passed"
    )
    return DeadlineExceededError(what, grpc.StatusCode.DEADLINE_EXCEEDED)


def closed() -> RequestCancelledError:
    """The exception of a request that was in flight when the client was closed."""
    return RequestCancelledError("the client was closed", grpc.StatusCode.CANCELLED)


def not_loaded(model: str) -> UnavailableError:
    """The exception of a request that needs to know a model's inputs, before there are any."""
    what = f"no version of model {model!r} is loaded, so what its input is called is not known"
    return UnavailableError(what, grpc.StatusCode.UNAVAILABLE)


def unreadable(what: object) -> InternalError:
    """The exception of an answer that is none."""
    return InternalError(f"the daemon's answer cannot be read: {what}", grpc.StatusCode.INTERNAL)


def from_rpc(error: grpc.RpcError) -> PredictdError:
    """Return the exception for a failed call."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.INTERNAL and details == _SEND_FAILED:
        code, details = (
            grpc.StatusCode.UNAVAILABLE,
            "the connection or the call ended while it was written to",
        )
    failure = _of_connection(details) if code is grpc.StatusCode.UNAVAILABLE else None
    failure = failure or from_status(code, details or code.value[1])
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    # Not dict(trailers): the metadata of older versions of grpc.aio looks like a mapping, and is none.
    failure.retry_after_seconds = _retry_after_seconds(dict(iter(trailers)))
    failure.__cause__ = error
    return failure


def _of_connection(details: str) -> PredictdError | None:
    """What is said in gRPC's words, and ours, where there is no connection; None where we have no words."""
    reason = tls.explain(details)
    if reason is not None:
        return TlsError(f"{reason} ({details})", grpc.StatusCode.UNAVAILABLE)
    hint = tls.hint(details)
    return None if hint is None else UnavailableError(f"{details} ({hint})", grpc.StatusCode.UNAVAILABLE)


def _retry_after_seconds(trailers: Mapping[str, str | bytes]) -> float | None:
    """The wait that a server asks for, by gRFC A6, where a negative one says never, or by RetryInfo."""
    pushback = trailers.get(_PUSHBACK)
    if pushback is not None:
        # It is an int32 by that proposal.
        text = str(pushback)
        return int(text) / 1000 if len(text) <= 10 and text.isdecimal() else math.inf
    details = trailers.get(_DETAILS)
    return wire.retry_delay_seconds(details) if isinstance(details, bytes) else None
