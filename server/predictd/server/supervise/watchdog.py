"""When a child hangs: a pure decision over what was seen of it at regular looks.

Time is counted in looks, not read from a clock. A look that comes late, because the machine is busy or the supervisor
was stopped itself, counts as one all the same, so what the supervisor could not see is held against nobody.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from predictd.server.transport.claims import Pulse

PERIOD_SECONDS = 0.25
# The event loop of a front end takes in whatever arrives before it answers us; under overload that may be seconds.
FRONTEND_FACTOR = 10
# Being stopped is not a matter of being slow, so less of the patience is needed.
STOPPED_FACTOR = 0.25


class Reason(enum.StrEnum):
    """Why a child is taken to hang."""

    STOPPED = "stopped"
    RUN_TIMEOUT = "run_timeout"
    SILENT = "silent"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a child at one look.

    Attributes:
        stopped: A signal has stopped it.
        answered: It has answered all that it was asked.
        excused: It starts, loads its first models, or leaves: it need neither answer nor come round.
        loads: It loads a model beside its run loop: it need not answer, but comes round where it does.
        held_back: It would go on, but gets no CPU, or waits for the disk.
        pulse: What a worker's run loop says of itself; None for others.
    """

    stopped: bool = False
    answered: bool = True
    excused: bool = False
    loads: bool = False
    held_back: bool = False
    pulse: Pulse | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the looks at a child add up to.

    Attributes:
        stopped: Looks in a row that found it stopped, without the first.
        silent: Looks in a row at which it owed an answer that it could have given.
        stuck: Looks in a row since its run loop, with nothing to do, came round.
        busy: Looks in a row that found it at work on the same thing, without the first.
        last: The look before.
    """

    stopped: int = 0
    silent: int = 0
    stuck: int = 0
    busy: int = 0
    last: Look | None = None

    def after(self, look: Look) -> Record:
        """With one more look."""
        last = self.last or Look()
        same_work = _busy(look.pulse) != 0 and _busy(last.pulse) == _busy(look.pulse)
        return Record(
            stopped=self.stopped + 1 if look.stopped and last.stopped else 0,
            silent=_count(
                self.silent,
                look,
                suspect=_is_silent(look) and not same_work,
                still=same_work and not look.answered,
            ),
            stuck=_count(self.stuck, look, suspect=_is_stuck(look, last)),
            busy=self.busy + 1 if same_work else 0,
            last=look,
        )


def suspect(look: Look, last: Look | None) -> bool:
    """Whether the look may be held against the child, so that it is worth seeing whether it is held back."""
    return not look.stopped and (_is_silent(look) or _is_stuck(look, last or Look()))


@dataclass(frozen=True, slots=True)
class Patience:
    """How many looks are too many.

    Attributes:
        stopped: For being stopped.
        silent: For an answer, and for a run loop to come round.
    """

    stopped: int
    silent: int


def patience(hang_timeout_seconds: float, factor: float = 1.0) -> Patience:
    """The patience that a `hang_timeout` asks for.

    Args:
        hang_timeout_seconds: The setting.
        factor: How much slower than a worker the child may be to answer.
    """
    return Patience(
        stopped=looks(hang_timeout_seconds * STOPPED_FACTOR), silent=looks(hang_timeout_seconds * factor)
    )


def looks(seconds: float) -> int:
    """The looks, at least one, that are at least so many seconds."""
    return max(1, math.ceil(seconds / PERIOD_SECONDS))


def verdict(record: Record, limits: Patience, run_looks: int) -> Reason | None:
    """Whether the child hangs, and why.

    Args:
        record: What was seen of it.
        limits: The patience with its kind.
        run_looks: Looks that what it is at work on may take.
    """
    if record.stopped >= limits.stopped:
        return Reason.STOPPED
    if record.busy >= run_looks:
        return Reason.RUN_TIMEOUT
    if record.silent >= limits.silent:
        return Reason.SILENT
    if record.stuck >= limits.silent:
        return Reason.STUCK
    return None


def _busy(pulse: Pulse | None) -> int:
    return 0 if pulse is None else pulse.busy_since_ns


def _is_silent(look: Look) -> bool:
    return not look.answered and not (look.excused or look.loads)


def _is_stuck(look: Look, last: Look) -> bool:
    """A run loop that has nothing to do comes round whenever a question to its process is answered."""
    idle = look.pulse is not None and not _busy(look.pulse)
    return idle and look.answered and not look.excused and look.pulse == last.pulse


def _count(before: int, look: Look, *, suspect: bool, still: bool = False) -> int:
    """One more, unless it cannot help it; from the start once it is above suspicion."""
    if not suspect and not still:
        return 0
    return before if still or look.held_back or look.stopped else before + 1
