"""The models that the published benchmark measures, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import proc, subject
from tests.bench.load import VERIFY_EVERY, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.subject import Subject


@dataclass(frozen=True, slots=True)
class BarePlan:
    """A way to run the engine alone: so many processes with so many threads, and batches of so many rows."""

    processes: int
    threads: int
    rows: int

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.processes} process(es) of {self.threads} thread(s), batch {self.rows}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What is promised of ratios; None where nothing is.

    Attributes:
        over_echo: Least requests a second over the echo server.
        over_bare: Least requests a second over the engine alone.
        alone_over_echo: Largest p50 of a single caller over the echo server.
    """

    over_echo: float | None = None
    over_bare: float | None = None
    alone_over_echo: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model under all loads.

    Attributes:
        name: Of the scenario.
        about: In the report.
        subject: Makes the model.
        most: The load that saturates: callers with one request each.
        requests: So many different ones.
        ragged: They have different shapes, so the engine alone gets all of them, too; otherwise the first.
        rows: Batch sizes that the engine alone is tried with.
        heavy: A request takes a good part of a second of CPU time, or as long to carry: it is measured for longer.
        deadline_seconds: Of each request that is one too many.
        aims: What is promised.
    """

    name: str
    about: str
    subject: Callable[[Path], Subject]
    most: Shape
    requests: int = 16
    ragged: bool = False
    rows: tuple[int, ...] = (1,)
    heavy: bool = False
    deadline_seconds: float = 0.25
    aims: Aims = field(default_factory=Aims)

    @property
    def bare_requests(self) -> int:
        """How many different ones the engine alone gets."""
        return self.requests if self.ragged else 1

    @property
    def alone(self) -> Shape:
        """The load of a single caller."""
        return Shape(1, 1, self.most.verify_every)

    def open(self, rate: float, deadline_seconds: float = 0.0) -> Shape:
        """Requests that come when they come."""
        return Shape(self.most.connections, 0, self.most.verify_every, rate, deadline_seconds)

    def plans(self) -> list[BarePlan]:
        """What the engine alone is tried with, in one process."""
        return [BarePlan(1, threads, rows) for rows in self.rows for threads in sorted({1, proc.cpus()})]

    def others(self) -> list[BarePlan]:
        """What several processes would do, to be seen beside: they have a copy of the model each."""
        cpus = proc.cpus()
        return [BarePlan(cpus, 1, rows) for rows in self.rows] if cpus > 1 else []


_FEW = 5
_SIXTEEN = Shape(4, 4, _FEW)

PUBLISHED: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="mlp",
            about="tiny MLP, 64 numbers in and out",
            subject=subject.mlp,
            most=Shape(8, 16, VERIFY_EVERY),
            rows=(1, 32),
            deadline_seconds=0.1,
            aims=Aims(over_echo=0.65, alone_over_echo=1.3),
        ),
        Case(
            name="minilm",
            about="MiniLM-sized transformer, 16 lengths from 8 to 128 tokens",
            subject=subject.minilm,
            most=_SIXTEEN,
            ragged=True,
            rows=(1, 4),
            heavy=True,
        ),
        Case(
            name="resnet",
            about="ResNet-50-sized, 600 KB in",
            subject=subject.resnet50,
            most=_SIXTEEN,
            rows=(1, 4, 8),
            heavy=True,
            aims=Aims(over_bare=0.97),
        ),
        Case(
            name="identity",
            about="identity, 10 MB in and out",
            subject=subject.identity,
            most=Shape(4, 1, _FEW),
            requests=2,
            heavy=True,
        ),
        Case(
            name="nonzero",
            about="data-dependent shapes: the places of what is not 0 among 1,024 numbers",
            subject=subject.nonzero,
            most=Shape(8, 16, VERIFY_EVERY),
            deadline_seconds=0.1,
        ),
    )
}
FURTHER: Mapping[str, Case] = {
    "minilm-fixed": Case(
        name="minilm-fixed",
        about="MiniLM-sized transformer, 128 tokens",
        subject=subject.minilm_fixed,
        most=_SIXTEEN,
        rows=(1, 4, 16),
        heavy=True,
    )
}
