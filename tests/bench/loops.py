"""Engine loops in processes of their own, alone or side by side, seen from outside.

`EngineLoops` are libraries as they are, `PlannedEngines` what `predictd bench --engine-only` measures: the engine of
predictd, with the mask, the environment and the options that the launcher decided.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from predictd.server.config.settings import Settings
from predictd.server.measure.engines import Engines
from predictd.server.measure.subject import Wish
from predictd.server.measure.subject import subject as planned_subject
from tests.bench import proc
from tests.bench.children import Child
from tests.bench.engine_loop import Load, Loaded, Loop, Ran

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.bench.subject import Subject

_START_SECONDS = 120.0
_ANSWER_SECONDS = 120.0
_MODULE = "tests.bench.engine_loop"


@dataclass(frozen=True, slots=True)
class LoopResult:
    """One measurement.

    Attributes:
        per_second: Rows a second, of all processes together.
        foreign_cpus: CPUs that were busy with other processes, an idle daemon among them.
    """

    per_second: float
    foreign_cpus: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how one process runs.

    Attributes:
        load: What it runs.
        environment: Variables over those of the benchmark.
    """

    load: Load
    environment: Mapping[str, str] | None = None


class EngineLoops:
    """Processes that run at the same time."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._stack = ExitStack()
        try:
            self._children = [self._stack.enter_context(_start(place)) for place in places]
            for child in self._children:
                child.hear(Loaded, _START_SECONDS)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, rows: int, seconds: float) -> LoopResult:
        """Run batches of so many rows in each process for so long."""
        machine = proc.machine_busy_seconds()
        for child in self._children:
            child.tell(Loop(rows, seconds))
        ran = [child.hear(Ran, seconds + _ANSWER_SECONDS) for child in self._children]
        foreign = proc.machine_busy_seconds() - machine - sum(each.cpu_seconds for each in ran)
        per_second = sum(each.rows / each.seconds for each in ran)
        return LoopResult(per_second, max(0.0, foreign) / max(each.seconds for each in ran))


class PlannedEngines:
    """Workers of one model as the launcher would start them."""

    def __init__(self, engine: str, model: Subject, workers: int) -> None:
        _declare(model)
        wish = Wish(model.path, engine=engine, instances=workers)
        self._row = model.row(0)
        self._engines = Engines(planned_subject(wish, Settings(cache_limit_bytes=0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engines.__exit__(kind, error, trace)

    def measure(self, rows: int, seconds: float) -> LoopResult:
        """Run batches of so many rows in each process for so long."""
        names = [spec.name for spec in self._engines.signature.inputs]
        self._engines.take([np.repeat(self._row[name], rows, axis=0) for name in names])
        began, machine = time.monotonic(), proc.machine_busy_seconds()
        window = self._engines.time(seconds)
        busy = (proc.machine_busy_seconds() - machine) / (time.monotonic() - began)
        return LoopResult(window.runs_per_second * rows, max(0.0, busy - window.cpus))


def _declare(model: Subject) -> None:
    """Say what the model takes where its file does not."""
    if not model.outputs:
        return
    tensors = [("inputs", name, (-1, *array.shape[1:])) for name, array in model.row(0).items()]
    tensors += [("outputs", name, shape) for name, shape in model.outputs]
    lines = [f'{kind}.{name} = {{dtype = "FP32", shape = {list(shape)}}}' for kind, name, shape in tensors]
    model.path.with_suffix(".toml").write_text("\n".join(lines))


def _start(place: Place) -> Child:
    child = Child(_MODULE, variables=place.environment or {})
    child.tell(place.load)
    return child


def rows_file(subject: Subject, folder: Path, count: int = 1) -> Path:
    """Some rows of the subject's inputs, where loops can read them."""
    path = folder / f"{subject.name}.npz"
    rows = [subject.row(number) for number in range(count)]
    arrays: dict[str, Any] = {
        f"{number}/{name}": array for number, row in enumerate(rows) for name, array in row.items()
    }
    np.savez(path, **arrays)
    return path


def plain(
    subject: Subject, folder: Path, threads: int | None, processes: int = 1, rows: int = 1
) -> EngineLoops:
    """ONNX Runtime as it is, in one or several processes, each with so many different rows in turns."""
    load = Load(
        engine="onnxruntime",
        path=str(subject.path),
        rows=str(rows_file(subject, folder, rows)),
        threads=threads,
    )
    return EngineLoops([Place(load)] * processes)
