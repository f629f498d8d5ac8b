from __future__ import annotations

import time

import pytest

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.rpc import Context, deadline_ns, fitting


class Call:
    def __init__(self, remaining_seconds: float | None) -> None:
        self._remaining_seconds = remaining_seconds

    def time_remaining(self) -> float | None:
        return self._remaining_seconds


def deadline_of(remaining_seconds: float | None) -> int:
    context: Context = Call(remaining_seconds)  # type: ignore[assignment]
    return deadline_ns(context)


def test_a_deadline_is_a_moment_of_the_monotonic_clock() -> None:
    before_ns = time.monotonic_ns()
    assert before_ns + 5 * 10**9 <= deadline_of(5.0) <= time.monotonic_ns() + 5 * 10**9
    assert deadline_of(0.0) >= before_ns


@pytest.mark.parametrize("remaining_seconds", [None, 2_562_047 * 3600.0, 99_999_999 * 3600.0])
def test_one_that_is_beyond_64_bits_is_none(remaining_seconds: float | None) -> None:
    assert deadline_of(remaining_seconds) == 0


def test_an_answer_as_large_as_the_limit_fits_and_no_larger_one() -> None:
    assert fitting(b"four", 4) == b"four"
    with pytest.raises(InvalidRequestError, match=r"5 bytes and a message may have 4 \(max_message_size\)"):
        fitting(b"fives", 4)
