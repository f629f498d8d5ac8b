"""How long the next run of a lane will take, learned from its last ones: what a deadline is compared with.

Runs are kept by size, in classes that double, as what one row of them cost. A size that was never seen is judged by the
nearest class that was: with its cost of a row. Nothing is expected before enough runs were seen, and what was seen too
long ago counts no more: a ticket that nobody runs because the last runs were slow would keep the next fast one from
being seen.

Costs are quantiles of the last runs, so that one run that was disturbed says nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SAMPLES = 15
ENOUGH_SAMPLES = 5
# What was seen so long ago counts no more, or four runs ago, for those that take longer.
KEPT_NS = 3 * 10**9
RUNS_KEPT = 4
# Most runs take no longer. With the median, half of the runs that begin just in time would end too late.
MOST = 0.75
# Where rows differ in what they cost, only what would be too late for a run among the cheaper ones is too late.
LOW = 0.2


@dataclass(slots=True)
class _Class:
    """Runs of about one size.

    Attributes:
        costs: Nanoseconds of a row, of the last runs.
        typical_ns: The quantile of them; 0 while there are too few.
        until_ns: When they count no more.
    """

    costs: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    typical_ns: float = 0.0
    until_ns: int = 0


@dataclass(slots=True)
class RunTimes:
    """What is known of one lane. Owned by the worker's run loop.

    Attributes:
        quantile: Which of the last runs is the expected one.
        expected: Nanoseconds of a run by its rows, for the smallest number in each class that was seen.
    """

    quantile: float = MOST
    expected: dict[int, int] = field(default_factory=dict)
    _classes: dict[int, _Class] = field(default_factory=dict)

    def ran(self, rows: int, run_ns: int, now_ns: int) -> None:
        """Learn from a run.

        Args:
            rows: Of the batch; a batch without rows counts as one.
            run_ns: From its claim to its completions.
            now_ns: When it ended.
        """
        rows = max(rows, 1)
        found = self._classes.setdefault(rows.bit_length(), _Class())
        if now_ns > found.until_ns:
            found.costs.clear()
        found.costs.append(run_ns / rows)
        found.until_ns = now_ns + KEPT_NS + RUNS_KEPT * run_ns
        ordered = sorted(found.costs)
        found.typical_ns = (
            ordered[int(len(ordered) * self.quantile)] if len(ordered) >= ENOUGH_SAMPLES else 0.0
        )
        if found.typical_ns:
            smallest = 1 << rows.bit_length() - 1
            self.expected[smallest] = int(smallest * found.typical_ns)

    def expected_ns(self, rows: int, now_ns: int) -> int:
        """What a run of so many rows is expected to take; 0 while nothing is known."""
        rows = max(rows, 1)
        wanted = rows.bit_length()
        nearest = min(
            (
                (abs(number - wanted), -number, one.typical_ns)
                for number, one in self._classes.items()
                if one.typical_ns and now_ns <= one.until_ns
            ),
            default=None,
        )
        return int(rows * nearest[2]) if nearest else 0
