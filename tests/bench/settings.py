"""What a run of the benchmark is made of: how long, how much load, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Profile:
    """How long things are measured.

    Attributes:
        rounds: Times that each side of a comparison is measured, alternating.
        seconds: Length of one measurement.
        heavy_seconds: The same for a model whose batches take a good part of a second.
        warmup_seconds: Load before each measurement that is not counted.
        starts: Times that the daemon is started to time it.
        reloads: Times that a model is loaded anew.
        reload_seconds: But not for longer.
    """

    rounds: int
    seconds: float
    heavy_seconds: float
    warmup_seconds: float
    starts: int
    reloads: int
    reload_seconds: float


FULL = Profile(
    rounds=5,
    seconds=1.2,
    heavy_seconds=2.2,
    warmup_seconds=0.4,
    starts=5,
    reloads=100,
    reload_seconds=25.0,
)
QUICK = Profile(
    rounds=2,
    seconds=0.6,
    heavy_seconds=1.5,
    warmup_seconds=0.2,
    starts=1,
    reloads=5,
    reload_seconds=5.0,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for.

    Attributes:
        profile: How long.
        folder: Scratch space, removed at the end.
        frontends: Front-end processes on both sides; None takes the daemon's own choice.
        serve_arguments: Further arguments of `predictd serve`.
        generators: Load generators, each of which gives a row of its own.
        clients: Client processes that share the connections.
    """

    profile: Profile
    folder: Path
    frontends: int | None
    serve_arguments: tuple[str, ...]
    generators: tuple[str, ...]
    clients: int

    @property
    def daemon_arguments(self) -> tuple[str, ...]:
        """What the daemon is started with in every scenario."""
        if self.frontends is None:
            return self.serve_arguments
        return (*self.serve_arguments, "--frontends", str(self.frontends))
