"""How far a build is, and how long it will take, from what TensorRT tells of its phases. Pure.

Phases lie in each other: a step of one may be a phase of many steps, and the steps of the outermost take very
different times: nearly all of it goes into one of them, which times kernels. So what is left is reckoned from the
innermost phase outwards, each at the speed of its own steps so far, and what is done from what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

# Before this nothing can be said of the rest.
_FIRST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        elapsed_seconds: Since it began.
        done: Of the whole, from 0 to 1; None where TensorRT does not tell.
        left_seconds: How long it will still take; None while nobody can say.
        waits: Another process builds the same plan.
    """

    elapsed_seconds: float
    done: float | None = None
    left_seconds: float | None = None
    waits: bool = False

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        what = (
            "waiting for the TensorRT plan that another process builds"
            if self.waits
            else "building the TensorRT plan"
        )
        so_far = f"{what}, {_duration(self.elapsed_seconds)} so far"
        done = "" if self.done is None else f", {self.done:.0%} done"
        left = "" if self.left_seconds is None else f", about {_duration(self.left_seconds)} left"
        return so_far + done + left


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


@dataclass(slots=True)
class _Phase:
    steps: int
    began: float
    step_began: float
    done: int = 0
    inner: _Phase | None = None

    def left_seconds(self, now: float) -> float | None:
        """How long it will still take; None while nothing of it tells how fast it goes."""
        if self.done >= self.steps:
            return 0.0
        a_step = (self.step_began - self.began) / self.done if self.done else None
        if self.inner is not None:
            within = self.inner.left_seconds(now)
            return None if within is None else within + (a_step or 0.0) * (self.steps - self.done - 1)
        return (
            None if a_step is None else max(0.0, a_step * (self.steps - self.done) - (now - self.step_began))
        )


class Phases:
    """Adds up what TensorRT tells; times are in seconds of any one clock."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._phases: dict[str, _Phase] = {}
        self._root: _Phase | None = None
        self._most = 0.0

    def start(self, name: str, parent: str | None, steps: int, now: float) -> None:
        """A phase begins."""
        phase = _Phase(steps, now, now)
        self._phases[name] = phase
        outer = None if parent is None else self._phases.get(parent)
        if outer is not None:
            outer.inner = phase
        elif self._root is None:
            self._root = phase

    def step(self, name: str, index: int, now: float) -> None:
        """A step of a phase is done."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done, phase.step_began, phase.inner = max(phase.done, index + 1), now, None

    def finish(self, name: str) -> None:
        """A phase is over."""
        phase = self._phases.pop(name, None)
        if phase is not None:
            phase.done = phase.steps

    def progress(self, now: float) -> BuildProgress:
        """How far all of it is. What is done never becomes less."""
        elapsed = now - self._began
        if self._root is None:
            return BuildProgress(elapsed)
        left = self._root.left_seconds(now) if elapsed >= _FIRST_SECONDS else None
        if left is not None:
            self._most = max(self._most, elapsed / (elapsed + left))
        return BuildProgress(elapsed, self._most, left)
