"""Whose turn it is to load: one worker at a time on a CPU.

Loading computes, with one thread a worker. Many loads at once would take the CPUs from those that serve; one at a time
takes one. A load that is slow, or hangs, must not hold up all others either: after a while it does not count any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

# Most loads take less; whoever waits behind a longer one waits no longer than this.
TURN_SECONDS = 10.0
# Stands for a lane in the turn of a worker that loads its first lanes.
FIRST_LANES = 0

Key = tuple[int, int]
"""The worker's id, and a lane's."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A load under way.

    Attributes:
        cpus: Where it computes.
        ends_at: When others need not wait for it any more.
    """

    cpus: frozenset[int]
    ends_at: float


def may_begin(waiting: Sequence[frozenset[int]], turns: Iterable[Turn], now: float) -> list[int]:
    """Which of the loads that wait may begin.

    Args:
        waiting: The CPUs of each, in the order in which they came. None overtakes another one on the same CPU.
        turns: Of those under way.
        now: The time.

    Returns:
        Indices into `waiting`.
    """
    busy = frozenset[int]().union(*(turn.cpus for turn in turns if turn.ends_at > now))
    found = []
    for index, cpus in enumerate(waiting):
        if busy.isdisjoint(cpus):
            found.append(index)
        busy |= cpus
    return found


class LoadTurns:
    """Has loads begin one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, tuple[frozenset[int], Callable[[], None]]] = {}
        self._turns: dict[Key, Turn] = {}
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, key: Key, cpus: Collection[int], begin: Callable[[], None]) -> None:
        """Call `begin` when it is this load's turn, maybe now."""
        self._waiting[key] = (frozenset(cpus), begin)
        self._look()

    def take(self, key: Key, cpus: Collection[int]) -> None:
        """A load begins now, whoever else loads; others wait for it."""
        self._turns[key] = Turn(frozenset(cpus), self._loop.time() + TURN_SECONDS)

    def over(self, key: Key) -> None:
        """A load came to its end, or is not wanted any more."""
        self._turns.pop(key, None)
        self._waiting.pop(key, None)
        self._look()

    def gone(self, worker: int) -> None:
        """A worker ended, and with it all its loads."""
        for key in [key for key in (*self._turns, *self._waiting) if key[0] == worker]:
            self._turns.pop(key, None)
            self._waiting.pop(key, None)
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        keys = list(self._waiting)
        due = may_begin([self._waiting[key][0] for key in keys], self._turns.values(), now)
        begins = [(keys[index], *self._waiting.pop(keys[index])) for index in due]
        for key, cpus, _ in begins:
            self.take(key, cpus)
        if self._waiting:
            ends_at = min((turn.ends_at for turn in self._turns.values() if turn.ends_at > now), default=now)
            self._timer = self._loop.call_at(ends_at, self._look)
        for _, _, begin in begins:
            begin()
