from __future__ import annotations

import logging

import pytest
from grpc import StatusCode

from predictd.server import errors
from predictd.server.frontend.status import Failure, StatusTable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequestError("m"), StatusCode.INVALID_ARGUMENT),
        (errors.UnknownModelError("m"), StatusCode.NOT_FOUND),
        (errors.ModelUnavailableError("m"), StatusCode.UNAVAILABLE),
        (errors.UnsupportedError("m"), StatusCode.UNIMPLEMENTED),
        (errors.OverloadedError("m"), StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineError("m"), StatusCode.DEADLINE_EXCEEDED),
        (errors.CancelledError("m"), StatusCode.CANCELLED),
        (errors.InferenceError("m"), StatusCode.INTERNAL),
    ],
)
def test_each_error_has_its_code_and_keeps_its_message(error: errors.RequestError, code: StatusCode) -> None:
    failure = StatusTable().failure(error)
    assert (failure.code, failure.message) == (code, "m")


def test_no_error_of_the_family_is_forgotten() -> None:
    table = StatusTable()
    for kind in errors.RequestError.__subclasses__():
        assert kind in table._codes


def test_a_subclass_has_the_code_of_its_nearest_base() -> None:
    class WrongShapeError(errors.InvalidRequestError):
        pass

    assert StatusTable().failure(WrongShapeError("m")) == Failure(StatusCode.INVALID_ARGUMENT, "m")


def test_a_protocol_overrides_single_codes() -> None:
    table = StatusTable({errors.ModelUnavailableError: StatusCode.FAILED_PRECONDITION})
    assert table.failure(errors.ModelUnavailableError("m")).code is StatusCode.FAILED_PRECONDITION
    assert table.failure(errors.UnknownModelError("m")).code is StatusCode.NOT_FOUND
    assert StatusTable().failure(errors.ModelUnavailableError("m")).code is StatusCode.UNAVAILABLE


def test_overload_says_when_to_come_back() -> None:
    failure = StatusTable().failure(errors.OverloadedError("full", retry_after_seconds=0.0301))
    assert failure.retry_after_seconds == 0.0301
    assert failure.trailers[0] == ("grpc-retry-pushback-ms", "31")
    assert [name for name, _ in failure.trailers] == ["grpc-retry-pushback-ms", "grpc-status-details-bin"]
    late = StatusTable().failure(errors.DeadlineError("late"))
    assert (late.trailers, late.retry_after_seconds) == ((), None)


def test_an_unknown_exception_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        failure = StatusTable().failure(KeyError("/secret/path"))
    assert failure.code is StatusCode.INTERNAL
    assert failure.message.startswith("internal error ")
    assert "secret" not in failure.message
    (record,) = caplog.records
    assert failure.message.rsplit(" ", 1)[1] in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_a_long_message_is_cut_to_what_trailers_hold(letter: str) -> None:
    failure = StatusTable().failure(errors.UnknownModelError(letter * 100_000))
    assert len(failure.message.encode()) <= 1024 + 3
    assert failure.message.startswith(letter * 300)
