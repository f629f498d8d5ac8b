"""Whatever happens to a place, in whatever order, at most one child lives in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.supervise.states import Event, IllegalTransitionError, State, transition

ALIVE = {State.STARTING, State.LOADING, State.MAPPING, State.SERVING, State.STOPPING}
events = st.lists(st.sampled_from(list(Event)), max_size=200)


@given(events)
def test_no_two_children_ever_live_in_one_place(happening: list[Event]) -> None:
    state, alive = State.STOPPED, 0
    for event in happening:
        before = state
        try:
            state = transition(state, event)
        except IllegalTransitionError:
            assert state is before
            continue
        alive += {Event.SPAWN: 1, Event.CRASHED: -1, Event.EXITED: -1}.get(event, 0)
        assert alive in (0, 1)
        assert (alive == 1) == (state in ALIVE)


@given(events)
def test_a_place_that_was_given_up_stays_so(happening: list[Event]) -> None:
    state = State.FAILED
    for event in happening:
        try:
            state = transition(state, event)
        except IllegalTransitionError:
            assert event is not Event.STOP
        assert state is State.FAILED


@given(events)
def test_a_stopped_place_is_reached_from_everywhere(happening: list[Event]) -> None:
    state = State.STOPPED
    for event in happening:
        try:
            state = transition(state, event)
        except IllegalTransitionError:
            continue
    state = transition(state, Event.STOP)
    if state is State.STOPPING:
        state = transition(state, Event.EXITED)
    assert state in (State.STOPPED, State.FAILED)
