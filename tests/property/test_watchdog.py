"""Whatever is seen of a child: it is condemned only for what was seen long enough, and then it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.supervise.watchdog import Look, Patience, Reason, Record, verdict
from predictd.server.transport.claims import Pulse

PULSES = st.builds(Pulse, st.integers(0, 3), st.sampled_from([0, 0, 7, 8]))
LOOKS = st.builds(
    Look,
    stopped=st.booleans(),
    answered=st.booleans(),
    excused=st.booleans(),
    held_back=st.booleans(),
    pulse=st.none() | PULSES,
)
LIMITS = st.builds(Patience, stopped=st.integers(1, 4), silent=st.integers(1, 6))


def history(seen: list[Look]) -> Record:
    record = Record()
    for look in seen:
        record = record.after(look)
    return record


@given(st.lists(LOOKS, max_size=30), LIMITS, st.integers(1, 8))
def test_every_verdict_has_its_evidence(seen: list[Look], limits: Patience, run_looks: int) -> None:
    reason = verdict(history(seen), limits, run_looks)
    if reason is Reason.STOPPED:
        assert all(look.stopped for look in seen[-limits.stopped - 1 :])
    elif reason is Reason.RUN_TIMEOUT:
        tail = seen[-run_looks - 1 :]
        assert len(tail) == run_looks + 1
        assert len({look.pulse.busy_since_ns for look in tail if look.pulse is not None}) == 1
        assert all(look.pulse is not None and look.pulse.busy_since_ns for look in tail)
    elif reason is Reason.SILENT:
        guilty = [
            look for look in seen if not (look.answered or look.excused or look.held_back or look.stopped)
        ]
        assert len(guilty) >= limits.silent
        assert not seen[-1].answered
    elif reason is Reason.STUCK:
        tail = seen[-limits.silent :]
        assert all(look.pulse == seen[-1].pulse for look in tail if not look.held_back)
        assert seen[-1].pulse is not None
        assert not seen[-1].pulse.busy_since_ns


@given(st.lists(LOOKS, max_size=30), LIMITS, st.integers(1, 8), PULSES)
def test_no_history_saves_a_child_that_hangs_from_now_on(
    seen: list[Look], limits: Patience, run_looks: int, pulse: Pulse
) -> None:
    """Neither answering, nor coming round, nor excused: one limit or the other is reached, and no look later."""
    record = history(seen)
    for _ in range(max(limits.silent, run_looks) + 1):
        record = record.after(Look(answered=False, pulse=pulse))
    assert verdict(record, limits, run_looks) is not None


@given(st.lists(LOOKS, max_size=30), LIMITS, st.integers(1, 8))
def test_a_child_that_answers_and_comes_round_is_never_condemned(
    seen: list[Look], limits: Patience, run_looks: int
) -> None:
    record = history(seen).after(Look(pulse=Pulse(100, 0)))
    for turns in range(101, 120):
        assert verdict(record, limits, run_looks) is None
        record = record.after(Look(pulse=Pulse(turns, 0)))
