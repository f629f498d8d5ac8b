"""What happens in one schedule, drawn from its seed: the daemon's shape, who asks for what, what goes wrong when."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

MS = 1_000_000


class Kind(enum.IntEnum):
    """What a request does to the engine."""

    GOOD = 0
    BAD = 1
    """The engine refuses whatever batch it is in."""
    POISON = 2
    """The engine crashes, each time."""
    HANG = 3
    """The engine never comes back, each time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        number: Its identity, which the payload carries.
        at_ns: When it comes.
        model: Number of the model.
        version: The one that it names, 0 for the default.
        cancel_after_ns: When its client leaves, 0 for never.
        deadline_ns: How long its client waits, 0 for as long as it takes.
    """

    number: int
    at_ns: int
    model: int
    version: int
    kind: Kind
    rows: int
    width: int
    priority: int
    cancel_after_ns: int
    deadline_ns: int


class Trouble(enum.Enum):
    """What goes wrong."""

    KILL_WORKER_AT = enum.auto()
    """The next worker that comes to a point of its work dies there."""
    KILL_WORKER = enum.auto()
    KILL_FRONTEND = enum.auto()
    KILL_FRONTEND_AT = enum.auto()
    """The front end of a request dies when the next worker comes to a point of its work on it."""
    CANCEL_AT = enum.auto()
    """The same, but its client leaves."""
    HANG_WORKER_AT = enum.auto()
    """The run loop of the next worker that comes to a point goes no further; its process goes on answering."""
    STOP = enum.auto()
    """A signal stops a worker or a front end, for a while or for good."""
    SWAP = enum.auto()
    """Every model has new content, or another version."""
    BROKEN_SWAP = enum.auto()
    """The same, but the new cannot be loaded."""
    NO_MEMORY = enum.auto()
    """No arena may grow for a while."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        draw: What else has to be drawn for it.
    """

    at_ns: int
    trouble: Trouble
    draw: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that the seed decides before the world begins; the order of steps is drawn while it runs.

    Attributes:
        drain_at_ns: When the daemon is told to leave, 0 for once all is answered.
        preemption: How likely others run at a point.
        forgetful: Arenas give back whatever they can spare, as often as possible.
        small_pipes: The queues and the carry are as small as the kernel makes pipes.
    """

    seed: int
    frontends: int
    workers: int
    models: int
    shared: bool
    max_batch_size: int
    max_delay_ns: int
    max_queue_size: int
    compute_ns: int
    preemption: float
    drain_at_ns: int
    small_pipes: bool
    forgetful: bool
    requests: tuple[Asked, ...] = field(default=())
    faults: tuple[Fault, ...] = field(default=())

    @property
    def end_ns(self) -> int:
        """When nothing new happens any more."""
        moments = [*(one.at_ns for one in self.requests), *(one.at_ns for one in self.faults)]
        return max(moments, default=0)

    @property
    def parts(self) -> tuple[Asked | Fault, ...]:
        """What it could do without."""
        return (*self.faults, *self.requests)

    def without(self, parts: Sequence[Asked | Fault]) -> Schedule:
        """The same, but for some requests and faults."""
        return replace(
            self,
            requests=tuple(one for one in self.requests if one not in parts),
            faults=tuple(one for one in self.faults if one not in parts),
        )


def draw_schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    draw = random.Random(seed)
    models = draw.choice([1, 1, 1, 2])
    span_ns = draw.choice([2, 10, 40]) * MS
    count = draw.choice([3, 8, 15, 30, 3, 8, 15, 30, 120])
    poisonous = draw.random() < 0.15
    deadlines = draw.random() < 0.3
    wide = draw.choice([2, 2, 2, 2000])
    hangs = draw.randint(1, count) if draw.random() < 0.06 else 0
    requests = tuple(
        _draw_request(draw, number, span_ns, models, wide, poisonous=poisonous, deadlines=deadlines)
        for number in range(1, count + 1)
    )
    requests = tuple(replace(one, kind=Kind.HANG) if one.number == hangs else one for one in requests)
    faults = _draw_faults(draw, span_ns)
    return Schedule(
        seed=seed,
        frontends=draw.choice([1, 1, 2]),
        workers=draw.choice([1, 2, 2, 3]),
        models=models,
        shared=draw.random() < 0.5,
        max_batch_size=draw.choice([1, 4, 4, 8]),
        max_delay_ns=draw.choice([0, 0, 0, 2 * MS]),
        max_queue_size=draw.choice([4, 64, 1024, 1024]),
        compute_ns=draw.choice([20_000, 500_000, 5 * MS]),
        preemption=draw.choice([0.05, 0.2, 0.5]),
        drain_at_ns=_draw_moment(draw, span_ns, faults) if draw.random() < 0.15 else 0,
        small_pipes=draw.random() < 0.3,
        forgetful=draw.random() < 0.15,
        requests=requests,
        faults=faults,
    )


def _draw_faults(draw: random.Random, span_ns: int) -> tuple[Fault, ...]:
    frontends_die = draw.random() < 0.4
    weights = {
        Trouble.KILL_WORKER_AT: 5,
        Trouble.KILL_WORKER: 2,
        Trouble.KILL_FRONTEND: 1 if frontends_die else 0,
        Trouble.KILL_FRONTEND_AT: 2 if frontends_die else 0,
        Trouble.CANCEL_AT: 2,
        Trouble.HANG_WORKER_AT: 0.5,
        Trouble.STOP: 0.5,
        Trouble.SWAP: 2,
        Trouble.BROKEN_SWAP: 0.5,
        Trouble.NO_MEMORY: 0.5,
    }
    faults: list[Fault] = []
    for _ in range(draw.choice([0, 1, 1, 2, 3, 4])):
        trouble = draw.choices(list(weights), list(weights.values()))[0]
        faults.append(Fault(_draw_moment(draw, span_ns, faults), trouble, draw.randrange(2**30)))
    return tuple(faults)


def _draw_moment(draw: random.Random, span_ns: int, faults: Sequence[Fault]) -> int:
    """Any moment, or one at which what a fault brought about goes on."""
    if faults and draw.random() < 0.4:
        return draw.choice(faults).at_ns + draw.randrange(1, 4 * MS)
    return draw.randrange(1, span_ns)


def _draw_request(
    draw: random.Random,
    number: int,
    span_ns: int,
    models: int,
    wide: int,
    *,
    poisonous: bool,
    deadlines: bool,
) -> Asked:
    kind = draw.choices([Kind.GOOD, Kind.BAD, Kind.POISON], [20, 1, 1.5 if poisonous else 0])[0]
    return Asked(
        number=number,
        at_ns=draw.randrange(span_ns),
        model=draw.randint(1, models),
        version=1 if draw.random() < 0.1 else 0,
        kind=kind,
        rows=draw.choice([1, 1, 1, 2, 5]),
        width=draw.choice([2, 2, 2, 3, wide]),
        priority=draw.choice([0, 0, 0, 1, 3]),
        cancel_after_ns=draw.randrange(1, draw.choice([8 * MS, 8 * MS, MS // 50]))
        if draw.random() < 0.12
        else 0,
        deadline_ns=draw.randrange(1, 20 * MS) if deadlines and draw.random() < 0.4 else 0,
    )
