from __future__ import annotations

import pickle

import grpc
import pytest

from predictd.client import errors

CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedError,
    grpc.StatusCode.CANCELLED: errors.RequestCancelledError,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
}


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_a_status_is_the_same_exception_as_a_code_and_as_a_number(code: grpc.StatusCode) -> None:
    for error in (errors.from_status(code, "why"), errors.from_number(code.value[0], "why")):
        assert type(error) is CLASSES.get(code, errors.PredictdError)
        assert (str(error), error.message, error.code) == ("why", "why", code)


def test_a_number_that_is_no_status_is_unknown() -> None:
    error = errors.from_number(4711, "why")
    assert type(error) is errors.PredictdError
    assert error.code is grpc.StatusCode.UNKNOWN


def test_errors_survive_pickling() -> None:
    error = errors.OverloadedError("full", grpc.StatusCode.RESOURCE_EXHAUSTED)
    error.retry_after_seconds = 0.5
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.code, copy.retry_after_seconds) == (
        errors.OverloadedError,
        "full",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        0.5,
    )
