"""The life of a child as a table. Illegal transitions raise: they are bugs, and they tell their story."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass


class State(enum.StrEnum):
    """Where a place (a worker's or a front end's) stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    MAPPING = "mapping"
    SERVING = "serving"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Event(enum.StrEnum):
    """What happens to a place."""

    SPAWN = "spawn"
    HELLO = "hello"
    WARM = "warm"
    MAPPED = "mapped"
    STOP = "stop"
    CRASHED = "crashed"
    GIVE_UP = "give up"
    EXITED = "exited"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STOPPED, Event.SPAWN): State.STARTING,
    (State.BACKOFF, Event.SPAWN): State.STARTING,
    (State.STARTING, Event.HELLO): State.LOADING,
    (State.LOADING, Event.WARM): State.MAPPING,
    (State.MAPPING, Event.MAPPED): State.SERVING,
    **{
        (state, Event.CRASHED): State.BACKOFF
        for state in (State.STARTING, State.LOADING, State.MAPPING, State.SERVING)
    },
    (State.BACKOFF, Event.GIVE_UP): State.FAILED,
    **{
        (state, Event.STOP): State.STOPPING
        for state in (State.STARTING, State.LOADING, State.MAPPING, State.SERVING)
    },
    (State.BACKOFF, Event.STOP): State.STOPPED,
    (State.STOPPED, Event.STOP): State.STOPPED,
    (State.FAILED, Event.STOP): State.FAILED,
    (State.STOPPING, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.EXITED): State.STOPPED,
}


class IllegalTransitionError(Exception):
    """A transition that the table does not have. This is a bug."""


def transition(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        IllegalTransitionError: The table has no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"'{event}' while {state}. This is a bug.") from None


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a crashed child comes back.

    A crash is barren when the child completed nothing since it was started. Barren crashes in a row are a
    crash loop: the delay doubles with each. A child that did work comes back after the first delay, however
    often it is killed. A place is given up soon when its child does not even come to serve, and late when it
    dies at its first request each time: a few poisonous requests in a row must not end a quiet lane.

    Attributes:
        first_delay_seconds: Before the first restart.
        longest_delay_seconds: The delay doubles up to this.
        failed_starts_limit: Crashes in a row before serving after which the place is given up.
        barren_limit: Barren crashes in a row, those while serving included, after which the place is given up.
        jitter: The delay is drawn from [delay, delay * (1 + jitter)], so that many children do not return at
            once.
    """

    first_delay_seconds: float = 0.05
    longest_delay_seconds: float = 30.0
    failed_starts_limit: int = 5
    barren_limit: int = 10
    jitter: float = 0.25

    def gives_up(self, failed_starts: int, barren_crashes: int) -> bool:
        """Whether so many crashes in a row are too many."""
        return failed_starts >= self.failed_starts_limit or barren_crashes >= self.barren_limit

    def delay_seconds(self, barren_crashes: int, draw: random.Random) -> float:
        """How long to wait before the next start."""
        delay = self.first_delay_seconds * 2.0 ** min(max(barren_crashes - 1, 0), 32)
        return min(delay, self.longest_delay_seconds) * (1 + self.jitter * draw.random())
