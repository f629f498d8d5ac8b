"""When a child is taken to hang, look by look."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from predictd.server.supervise.watchdog import (
    FRONTEND_FACTOR,
    Look,
    Patience,
    Reason,
    Record,
    looks,
    patience,
    suspect,
    verdict,
)
from predictd.server.transport.claims import Pulse

LIMITS = Patience(stopped=2, silent=4)
RUN_LOOKS = 10

WELL = Look()
STOPPED = Look(stopped=True, answered=False)
SILENT = Look(answered=False)


def idle(turns: int, **more: bool) -> Look:
    return Look(pulse=Pulse(turns, 0), **more)


def busy(since_ns: int, turns: int = 0, **more: bool) -> Look:
    return Look(pulse=Pulse(turns, since_ns), **more)


def first_verdict(seen: Iterable[Look], run_looks: int = RUN_LOOKS) -> tuple[int, Reason] | None:
    """The number of the look, from 1, that condemned a child, and why."""
    record = Record()
    for number, look in enumerate(seen, 1):
        record = record.after(look)
        reason = verdict(record, LIMITS, run_looks)
        if reason is not None:
            return number, reason
    return None


def test_patience_is_counted_in_looks_of_a_quarter_of_a_second() -> None:
    assert patience(1.0) == Patience(stopped=1, silent=4)
    assert patience(1.0, FRONTEND_FACTOR) == Patience(stopped=1, silent=40)
    assert patience(10.0) == Patience(stopped=10, silent=40)
    assert [looks(seconds) for seconds in (0, 0.25, 0.3, 1, 60)] == [1, 1, 2, 4, 240]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([WELL] * 100, None),
        # The first look that finds it stopped may have come right after the signal.
        ([WELL, STOPPED, STOPPED, STOPPED], (4, Reason.STOPPED)),
        ([STOPPED, STOPPED, WELL] * 50, None),
        ([WELL, *[SILENT] * 4], (5, Reason.SILENT)),
        ([*[SILENT] * 3, WELL] * 50, None),
        ([idle(at) for at in range(100)], None),
        ([idle(7)] * 5, (5, Reason.STUCK)),
        ([busy(9)] * 11, (11, Reason.RUN_TIMEOUT)),
        ([busy(at) for at in range(1, 100)], None),
    ],
)
def test_what_is_taken_for_a_hang(seen: list[Look], expected: tuple[int, Reason] | None) -> None:
    assert first_verdict(seen) == expected


def test_a_child_that_loads_starts_or_leaves_owes_nothing_but_may_not_be_stopped() -> None:
    assert first_verdict([Look(answered=False, excused=True, pulse=Pulse(0, 0))] * 1000) is None
    assert first_verdict([Look(stopped=True, excused=True)] * 3) == (3, Reason.STOPPED)


def test_an_excuse_is_the_end_of_what_was_held_against_a_child() -> None:
    silent_before = [SILENT] * 3 + [Look(answered=False, excused=True)]
    assert first_verdict([*silent_before, *[SILENT] * 3]) is None
    assert first_verdict([*silent_before, *[SILENT] * 4]) == (8, Reason.SILENT)


def test_a_child_that_is_held_back_is_given_as_long_as_it_takes() -> None:
    starved = Look(answered=False, held_back=True)
    assert first_verdict([starved] * 1000) is None
    assert first_verdict([SILENT] * 3 + [starved] * 1000) is None
    assert first_verdict([SILENT] * 3 + [starved] * 10 + [SILENT]) == (14, Reason.SILENT)


def test_a_run_that_keeps_all_other_threads_from_running_is_limited_by_run_timeout_alone() -> None:
    """The control thread cannot answer, and nobody expects the run loop to come round."""
    assert first_verdict([busy(5, answered=False)] * 10) is None
    assert first_verdict([busy(5, answered=False)] * 11) == (11, Reason.RUN_TIMEOUT)
    assert first_verdict([busy(5, answered=False)] * 400, run_looks=400) is None


def test_a_worker_that_does_not_answer_between_runs_is_silent() -> None:
    """Each new run had a moment before it in which the control thread could have answered."""
    seen = [busy(at // 3 + 1, answered=False) for at in range(100)]
    assert first_verdict(seen) == (10, Reason.SILENT)


def test_a_run_loop_is_not_expected_to_come_round_unless_it_was_woken() -> None:
    asked_only = [idle(3, answered=False)] * 3
    assert first_verdict([*asked_only, idle(3), *asked_only, idle(3), idle(4)]) is None


def test_only_what_could_be_held_against_a_child_is_looked_into() -> None:
    assert suspect(SILENT, None)
    assert suspect(idle(3), idle(3))
    for look, last in ((WELL, WELL), (STOPPED, None), (idle(4), idle(3)), (busy(3), busy(3))):
        assert not suspect(look, last)
