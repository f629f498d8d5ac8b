"""Everything that can go wrong with a request, in one small hierarchy.

The domain raises these; `predictd.server.frontend.status` alone maps them to gRPC status codes, with the few
differences that a protocol's own table demands. Messages are shown to clients: they name the model, the
input, what was expected and what came, never a path or an internal name.
"""

from __future__ import annotations

from typing import Literal

# The limits by which requests are refused because there is too much to do, as metrics call them.
ShedReason = Literal["queue_size", "queue_bytes", "expected_wait", "client_limit", "memory"]
# Why callers are refused, whatever they ask for.
RefusalReason = Literal["no_credentials", "invalid_credentials", "role", "model"]


class RequestError(Exception):
    """A request that cannot be answered. Base of the family."""


class InvalidRequestError(RequestError):
    """The request contradicts the model's signature or the protocol."""


class UnknownModelError(RequestError):
    """No such model, version or label."""


class ModelUnavailableError(RequestError):
    """The model exists and cannot answer now: loading, failed, or the daemon is draining."""


class FailedPreconditionError(RequestError):
    """What would have to be there first is not: a signature that the model has, or a model that can be loaded."""


class UnauthenticatedError(RequestError):
    """It is not known who calls, and it has to be."""


class ForbiddenError(RequestError):
    """Who calls may not do this."""


class UnsupportedError(RequestError):
    """An RPC, parameter or extension that predictd does not have."""


class OverloadedError(RequestError):
    """A queue or an arena is full.

    Attributes:
        retry_after_seconds: When another try may succeed; an estimate.
        limit: Which limit of those that are counted; None for another one.
    """

    def __init__(
        self, message: str, retry_after_seconds: float = 0.1, limit: ShedReason | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.limit = limit


class DeadlineError(RequestError):
    """The deadline passed before an answer could be had."""


class CancelledError(RequestError):
    """The client went away."""


class InferenceError(RequestError):
    """The engine failed, or the request killed its worker."""
