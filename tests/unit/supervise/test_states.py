"""The table of a child's life, and when a crashed child comes back."""

from __future__ import annotations

import random

import pytest

from predictd.server.supervise.states import (
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    RestartPolicy,
    State,
    transition,
)

LIFE = [
    (Event.SPAWN, State.STARTING),
    (Event.HELLO, State.LOADING),
    (Event.WARM, State.MAPPING),
    (Event.MAPPED, State.SERVING),
    (Event.STOP, State.STOPPING),
    (Event.EXITED, State.STOPPED),
]


def test_a_life_without_accidents() -> None:
    state = State.STOPPED
    for event, expected in LIFE:
        state = transition(state, event)
        assert state is expected


@pytest.mark.parametrize("state", [State.STARTING, State.LOADING, State.MAPPING, State.SERVING])
def test_a_crash_is_followed_by_a_new_start_or_by_giving_up(state: State) -> None:
    assert transition(state, Event.CRASHED) is State.BACKOFF
    assert transition(State.BACKOFF, Event.SPAWN) is State.STARTING
    assert transition(State.BACKOFF, Event.GIVE_UP) is State.FAILED


@pytest.mark.parametrize("state", list(State))
def test_whatever_it_does_it_can_be_asked_to_stop(state: State) -> None:
    alive = state in (State.STARTING, State.LOADING, State.MAPPING, State.SERVING, State.STOPPING)
    rest = State.FAILED if state is State.FAILED else State.STOPPED
    assert transition(state, Event.STOP) is (State.STOPPING if alive else rest)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_transition_that_the_table_does_not_have_raises(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransitionError) as caught:
            transition(state, event)
        assert str(caught.value) == f"'{event}' while {state}. This is a bug."


def test_every_state_can_be_reached_and_every_event_happens() -> None:
    assert {State.STOPPED, *TRANSITIONS.values()} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_a_place_is_given_up_after_so_many_barren_crashes() -> None:
    policy = RestartPolicy(failed_starts_limit=2, barren_limit=3)
    assert [policy.gives_up(0, number) for number in range(5)] == [False, False, False, True, True]
    assert [policy.gives_up(number, number) for number in range(4)] == [False, False, True, True]


def test_the_delay_doubles_up_to_a_limit() -> None:
    policy = RestartPolicy(first_delay_seconds=0.5, longest_delay_seconds=3.0, jitter=0.0)
    draw = random.Random(1)
    assert [policy.delay_seconds(number, draw) for number in range(6)] == [0.5, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.delay_seconds(10**9, draw) == 3.0


def test_the_delay_has_a_bounded_jitter() -> None:
    policy = RestartPolicy(first_delay_seconds=1.0, jitter=0.25)
    draw = random.Random(1)
    delays = {policy.delay_seconds(1, draw) for _ in range(100)}
    assert all(1.0 <= delay <= 1.25 for delay in delays)
    assert len(delays) > 90
