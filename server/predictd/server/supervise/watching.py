"""Looking at the children regularly, and killing those that hang."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from predictd.server.control.messages import Ping
from predictd.server.supervise.child import Child, who
from predictd.server.supervise.held_back import Activity, held_back, read_activity
from predictd.server.supervise.limits import Limit
from predictd.server.supervise.pool import Place
from predictd.server.supervise.states import State
from predictd.server.supervise.watchdog import (
    FRONTEND_FACTOR,
    PERIOD_SECONDS,
    Look,
    Reason,
    Record,
    looks,
    patience,
    suspect,
    verdict,
)
from predictd.server.transport.claims import read_pulse

WORKER, FRONTEND = "worker", "frontend"
# A child that has not said hello takes no question, one that leaves owes no answer.
_ANSWERING = (State.LOADING, State.MAPPING, State.SERVING)

_NO_LIMIT = Limit(PERIOD_SECONDS, "")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """What is known of one child.

    Attributes:
        role: WORKER or FRONTEND.
        asked: A question of ours is unanswered.
        activity: Of its threads at the last look, while it is suspected.
        killed: It was found to hang; the kernel has the rest to do.
    """

    role: str
    record: Record = field(default_factory=Record)
    asked: bool = False
    activity: Activity | None = None
    killed: bool = False


class Watch:
    """Finds children that hang.

    Args:
        hang_timeout_seconds: The setting.
        workers: Those that run, and their places.
        frontends: The same of front ends.
        limit: How long what the worker of a place is at work on may take.

    Attributes:
        kills: How often a child was killed, by its role and the reason.
    """

    def __init__(
        self,
        hang_timeout_seconds: float,
        workers: Callable[[], Iterable[tuple[Place, Child]]],
        frontends: Callable[[], Iterable[tuple[Place, Child]]],
        limit: Callable[[Place], Limit],
    ) -> None:
        self._workers = workers
        self._frontends = frontends
        self._limit = limit
        self._hang_timeout_seconds = hang_timeout_seconds
        self._patience = {
            WORKER: patience(hang_timeout_seconds),
            FRONTEND: patience(hang_timeout_seconds, FRONTEND_FACTOR),
        }
        self._watched: dict[int, _Watched] = {}
        # Looks since any front end answered, as far as it could; None before the first answer.
        self._quiet_looks: int | None = None
        self.kills: Counter[tuple[str, str]] = Counter(
            {
                **{(WORKER, reason.value): 0 for reason in Reason},
                **{(FRONTEND, reason.value): 0 for reason in (Reason.STOPPED, Reason.SILENT)},
            }
        )

    async def run(self) -> None:
        """Look for ever."""
        while True:
            # Not less than the period after the last look, however late that was.
            await asyncio.sleep(PERIOD_SECONDS)
            self.look()

    def look(self) -> None:
        """Look at every child once."""
        living = [(WORKER, place, child) for place, child in self._workers()]
        living += [(FRONTEND, place, child) for place, child in self._frontends()]
        gone = self._watched.keys() - {child.id for _, _, child in living}
        for child_id in gone:
            del self._watched[child_id]
        for role, place, child in living:
            self._look_at(role, place, child)
        if self._quiet_looks is not None and not self._frontend_held_back():
            self._quiet_looks += 1

    def heard(self, child: Child) -> None:
        """A child answered."""
        watched = self._watched.get(child.id)
        if watched is not None:
            watched.asked = False
            if watched.role == FRONTEND:
                self._quiet_looks = 0

    @property
    def frontends_answer(self) -> bool:
        """Some front end made progress lately, or may still do so once the silent ones were killed."""
        return (self._quiet_looks or 0) <= 2 * self._patience[FRONTEND].silent

    def _frontend_held_back(self) -> bool:
        frontends = (watched for watched in self._watched.values() if watched.role == FRONTEND)
        return any(watched.record.last is not None and watched.record.last.held_back for watched in frontends)

    def _look_at(self, role: str, place: Place, child: Child) -> None:
        watched = self._watched.setdefault(child.id, _Watched(role))
        if watched.killed:
            return
        answering = place.state in _ANSWERING
        look = Look(
            stopped=child.stopped,
            answered=not watched.asked,
            excused=_excused(place),
            loads=place.loading is not None and answering,
            pulse=None if place.claims is None else read_pulse(place.claims),
        )
        look = _with_activity(watched, child, look)
        watched.record = watched.record.after(look)
        limit = self._limit(place) if watched.record.busy else _NO_LIMIT
        reason = verdict(watched.record, self._patience[role], looks(limit.seconds))
        if reason is not None:
            watched.killed = True
            self._kill(role, child, reason, limit)
        elif answering and not watched.asked:
            watched.asked = True
            child.send(Ping())

    def _kill(self, role: str, child: Child, reason: Reason, limit: Limit) -> None:
        self.kills[role, limit.setting if reason is Reason.RUN_TIMEOUT else reason.value] += 1
        _log.error("%s hangs and is killed: %s", who(child), self._why(role, reason, limit))
        child.kill()

    def _why(self, role: str, reason: Reason, limit: Limit) -> str:
        silent_seconds = self._hang_timeout_seconds * (FRONTEND_FACTOR if role == FRONTEND else 1)
        match reason:
            case Reason.STOPPED:
                return "a signal has stopped it"
            case Reason.RUN_TIMEOUT:
                what = "a run" if limit.setting == "run_timeout" else "closing a model"
                return f"{what} takes more than {limit.seconds:g} s ({limit.setting})"
            case Reason.SILENT:
                return f"it has not answered for {silent_seconds:g} s (hang_timeout)"
            case Reason.STUCK:
                return (
                    f"it answers, but for {silent_seconds:g} s has neither run anything nor looked for requests "
                    "(hang_timeout)"
                )


def _excused(place: Place) -> bool:
    """Whether a child need neither answer nor come round."""
    if place.state is State.STOPPING:
        # Leaving, a worker's run loop comes to the closing of its engines, which takes as long as it takes.
        return place.claims is None
    return place.state is State.LOADING or place.state not in _ANSWERING


def _with_activity(watched: _Watched, child: Child, look: Look) -> Look:
    """With the reason why it may not be to blame. That costs some reads, so only who is suspected is asked."""
    if not suspect(look, watched.record.last):
        watched.activity = None
        return look
    before, watched.activity = watched.activity, read_activity(child.pid)
    return replace(look, held_back=held_back(before, watched.activity))
