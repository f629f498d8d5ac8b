"""One line per event, model and second, and all that is left out is counted."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.observe.log_limit import LineLimit, key_of

A, B = ("a",), ("b",)


def test_one_line_in_a_window_and_the_next_one_tells_how_many_were_left_out() -> None:
    limit: LineLimit[str] = LineLimit()
    assert limit.admit(A, "1", 0.0) == 0
    assert limit.admit(A, "2", 0.1) is None
    assert limit.admit(A, "3", 0.9) is None
    assert limit.admit(B, "4", 0.9) == 0
    assert limit.admit(A, "5", 1.0) == 2


def test_the_last_one_left_out_is_written_when_none_follows() -> None:
    limit: LineLimit[str] = LineLimit()
    for number in range(3):
        limit.admit(A, str(number), 0.0)
    assert limit.overdue(0.9) == []
    assert limit.overdue(1.0) == [("2", 1)]
    assert limit.admit(A, "3", 1.5) is None, "that was a line, too"
    assert limit.overdue(2.0) == [("3", 0)]
    assert limit.overdue(9.0) == []


def test_only_so_many_events_are_remembered_and_none_is_lost_to_the_count() -> None:
    limit: LineLimit[str] = LineLimit(keys_max=2)
    limit.admit(A, "1", 0.0)
    limit.admit(A, "2", 0.0)
    limit.admit(B, "3", 0.0)
    limit.admit(("c",), "4", 0.0)
    assert limit.overdue(0.0) == [("2", 0)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 0.7), st.booleans())))
def test_every_event_is_a_line_or_counted_on_one(steps: list[tuple[str, float, bool]]) -> None:
    limit: LineLimit[int] = LineLimit(keys_max=3)
    now, told = 0.0, 0
    for number, (name, pause, look) in enumerate(steps):
        now += pause
        left_out = limit.admit((name,), number, now)
        told += 0 if left_out is None else 1 + left_out
        told += sum(1 + before for _, before in limit.overdue(now)) if look else 0
    told += sum(1 + before for _, before in limit.overdue(now + 1))
    assert told == len(steps)


def record(template: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("l", logging.INFO, "p", 1, template, args, None)
    vars(made).update(extra)
    return made


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (record("%s (pid %d) died", "worker a 0", 1), record("%s (pid %d) died", "worker a 0", 2), True),
        (record("%s (pid %d) died", "worker a 0", 1), record("%s (pid %d) died", "worker b 0", 1), False),
        (record("%s", "this"), record("%s", "that"), False),
        (record("%s", "this"), record("%s", "this"), True),
        (record("m %s", "x", model="a"), record("m %s", "y", model="a"), True),
        (record("m %s", "x", model="a"), record("m %s", "x", model="b"), False),
        (record("m: %s", ValueError("1")), record("m: %s", ValueError("2")), True),
    ],
)
def test_what_makes_two_lines_the_same_event(
    one: logging.LogRecord, other: logging.LogRecord, same: bool
) -> None:
    assert (key_of(one) == key_of(other)) is same
