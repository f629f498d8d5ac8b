"""How many rows a batch shall have at most so that the engine gets most done: learned from its own runs.

A larger batch is not always a better one. Once a row costs the same in a small batch as in a large one, the small one
is as fast for all and sooner done for the first; and where the large one falls out of a cache, it is slower for all.
So each lane starts with the limit that its configuration sets, tries less and more than what it does now from time to
time, and goes where a row costs less: down when the smaller batch costs nothing, up when the larger one saves
something. The gap between the two keeps it from swinging.

Costs are medians of the last runs, so that one run that was disturbed says nothing.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

# What a batch costs outside of the engine, about: reading, claiming, answering, and waking a front end.
BATCH_OVERHEAD_NS = 300_000
SAMPLES = 9
ENOUGH_SAMPLES = 5
RUNS_BETWEEN_TRIALS = 16
# While too little is known of a neighbouring size, its turn comes sooner: a slow model has few runs a second.
RUNS_BETWEEN_FIRST_TRIALS = 2
RUNS_OF_PATIENCE = 3
DOWN_RATIO = 1.005
UP_RATIO = 0.975


@dataclass(slots=True)
class Efficiency:
    """What is known of one lane. Owned by the worker's run loop.

    Attributes:
        largest: The limit of the configuration.
        limit: The limit of now, a trial apart.
    """

    largest: int
    limit: int = 0
    _samples: dict[int, deque[float]] = field(default_factory=dict)
    _costs: dict[int, float] = field(default_factory=dict)
    _runs: int = 0
    _trials: int = 0
    _trying: int = 0
    _patience: int = 0

    def __post_init__(self) -> None:
        self.limit = self.largest

    def ran(self, rows: int, compute_ns: int) -> int:
        """Learn from a run.

        Args:
            rows: Of the batch.
            compute_ns: Of the engine.

        Returns:
            Rows that the next batch may have.
        """
        # Loads that never fill a batch are compared at the size that they reach.
        reached = min(self.limit, 1 << rows.bit_length() - 1) if rows < self.limit else self.limit
        if rows <= self.largest:
            size = rows if rows == self.largest else 1 << rows.bit_length() - 1
            cost = (compute_ns + BATCH_OVERHEAD_NS) / rows
            samples = self._samples.setdefault(size, deque(maxlen=SAMPLES))
            samples.append(cost)
            if len(samples) >= ENOUGH_SAMPLES:
                self._costs[size] = statistics.median(samples)
            self._move(reached)
        self._runs += 1
        if self._trying > rows and self._patience:
            # Too few were there for the trial; soon there may be more.
            self._patience -= 1
            return self._trying
        self._trying = self._next_trial(reached)
        self._patience = RUNS_OF_PATIENCE
        return self._trying or self.limit

    def _next_trial(self, reached: int) -> int:
        """A size to try; 0 when there is nothing to try now."""
        smaller = self._smaller(reached)
        if self._cost(reached) is not None and self._cost(smaller) is None:
            return 0 if self._runs % RUNS_BETWEEN_FIRST_TRIALS else smaller
        if self._runs % RUNS_BETWEEN_TRIALS:
            return 0
        self._trials += 1
        # A saving may show only far above, so the largest has its turn, too.
        turns = (smaller, self._larger(self.limit), smaller, self.largest)
        return turns[self._trials % len(turns)]

    def _move(self, reached: int) -> None:
        here = self._cost(reached)
        if here is None:
            return
        for larger in (self._larger(reached), self.largest):
            above = self._cost(larger)
            if above is not None and above < here * UP_RATIO:
                self.limit = max(self.limit, larger)
                return
        smaller = self._smaller(reached)
        below = self._cost(smaller)
        if smaller < reached and below is not None and below <= here * DOWN_RATIO:
            self.limit = smaller

    def _cost(self, rows: int) -> float | None:
        """Nanoseconds of a row in a batch of so many, up to twice as many; None while too little is known."""
        return self._costs.get(rows)

    @staticmethod
    def _smaller(rows: int) -> int:
        """The power of two below, at least 1."""
        return 1 if rows == 1 else 1 << (rows - 1).bit_length() - 1

    def _larger(self, rows: int) -> int:
        """The power of two above, at most the largest."""
        return min(1 << rows.bit_length(), self.largest)
