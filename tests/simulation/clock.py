"""The time of a simulated world: it passes only when the scheduler says so, and a little with each look at it."""

from __future__ import annotations

# Two looks never see the same moment, as on a real machine.
LOOK_NS = 20
START_NS = 1_000_000_000


class Clock:
    """Stands for CLOCK_MONOTONIC.

    Attributes:
        now_ns: The moment, without the look.
    """

    def __init__(self) -> None:
        self.now_ns = START_NS

    def look_ns(self) -> int:
        """Read the clock."""
        self.now_ns += LOOK_NS
        return self.now_ns

    def pass_ns(self, duration_ns: int) -> None:
        """Let time pass."""
        self.now_ns += duration_ns

    def pass_until(self, moment_ns: int) -> None:
        """Let time pass up to a moment; never back."""
        self.now_ns = max(self.now_ns, moment_ns)
