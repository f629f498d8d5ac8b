"""Which settings are worth a try for a model on a machine.

Not every combination: the search goes stage by stage, each from the best of the one before. First who runs the
model and how the cores are divided, which decides by factors; then how threads wait; then how batches are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from predictd.engines.traits import BUILT_IN, engine_for_suffix
from predictd.server.config.tuned import TunedValue
from predictd.server.tune.candidate import Move

_BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128)
_DELAYS_NS = (500_000, 2_000_000, 5_000_000)

Values = tuple[TunedValue, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tuned, and on what.

    Attributes:
        suffix: Of the model's file, such as ".onnx".
        cores: Threads of one run that the default plan gives, one for each core.
        cpus: How many CPUs can be used at once.
        callers: At once, at most.
        max_batch_size: The default.
        allocators: That are installed, beside the default.
        batches: Rows of several requests may share a run.
        slo_ns: What 99% of the answers must come within; None without.
        held: Settings that the user made, which stay.
        only: Settings to try instead of all, each with its values, or none for the usual ones.
    """

    suffix: str
    cores: int
    cpus: int
    callers: int
    max_batch_size: int
    allocators: tuple[str, ...] = ()
    batches: bool = True
    slo_ns: int | None = None
    held: frozenset[str] = frozenset()
    only: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the search.

    Attributes:
        name: What is decided in it.
        moves: What is tried, each from the best of the stage before.
    """

    name: str
    moves: tuple[Move, ...]


def stages(subject: Subject) -> tuple[Stage, ...]:
    """The steps of the search, those left out in which there is nothing to try."""
    made = (Stage(name, tuple(moves(subject))) for name, moves in _STAGES.items())
    return tuple(stage for stage in made if stage.moves)


def _engines(subject: Subject) -> list[Move]:
    usual = engine_for_suffix(subject.suffix)
    # What is tried is how the machine's CPUs are used; an engine of a GPU builds for minutes and knows none of it.
    able = (
        name
        for name, traits in BUILT_IN.items()
        if subject.suffix.lower() in traits.all_suffixes and traits.device == "cpu"
    )
    return _each(subject, "engine", tuple(name for name in able if name != usual))


def _processes(subject: Subject) -> list[Move]:
    """Workers and threads: a few that share the cores out, and some that use more or fewer than there are."""
    asked = {name: subject.only[name] for name in ("instances", "threads") if name in subject.only}
    if subject.held & {"instances", "threads"} or (subject.only and not asked):
        return []
    if any(asked.values()):
        instances = asked.get("instances", ())
        threads = asked.get("threads", ())
        pairs = itertools.product(instances or (None,), threads or (None,))
        return [_pair(i, t) for i, t in pairs]
    doubled = [1 << power for power in range(1, subject.cores.bit_length())]
    moves = [_pair(count, None) for count in dict.fromkeys((*doubled, subject.cores)) if count > 1]
    if subject.cores > 1:
        # Half of the cores: memory may be what limits. All of them twice: one worker fills the other's pauses.
        moves += [_pair(None, subject.cores // 2), _pair(2, subject.cores)]
    if subject.cpus > subject.cores:
        moves.append(_pair(None, subject.cpus))
    unasked = {"instances", "threads"} - asked.keys() if subject.only else set()
    return [move for move in moves if not unasked & move.keys()]


def _pair(instances: TunedValue | None, threads: TunedValue | None) -> Move:
    pair = {"instances": instances, "threads": threads}
    return {name: value for name, value in pair.items() if value is not None}


def _waiting(subject: Subject) -> list[Move]:
    # Where nobody else needs the cores the plan lets threads spin; nowhere else is it worth a try.
    return _each(subject, "spin", (False,))


def _allocators(subject: Subject) -> list[Move]:
    return _each(subject, "allocator", subject.allocators)


def _sizes(subject: Subject) -> list[Move]:
    sizes = [size for size in _BATCH_SIZES if size <= subject.callers and size != subject.max_batch_size]
    return _each(subject, "max_batch_size", tuple(sizes)) if subject.batches else []


def _delays(subject: Subject) -> list[Move]:
    longest = _DELAYS_NS[-1] if subject.slo_ns is None else subject.slo_ns // 2
    delays = tuple(delay for delay in _DELAYS_NS if delay <= longest)
    return _each(subject, "max_delay_ns", delays) if subject.batches else []


# One entry for each thing that is decided by itself.
_STAGES: Mapping[str, Callable[[Subject], list[Move]]] = {
    "engine": _engines,
    "instances and threads": _processes,
    "spinning": _waiting,
    "allocator": _allocators,
    "batch size": _sizes,
    "delay": _delays,
}


def _each(subject: Subject, name: str, usual: Values) -> list[Move]:
    """A move for each value of a setting that the user left open."""
    if name in subject.held or (subject.only and name not in subject.only):
        return []
    return [{name: value} for value in subject.only.get(name) or usual]
