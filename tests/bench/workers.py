"""Several workers of one model on this machine: placed by the plan over what the library does by itself.

No server takes part: each worker is a process that runs its engine in a loop. "library" processes are started as one
starts a script; "plan" processes have the mask, the environment and the engine options that the launcher decides.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import subject
from tests.bench.engine_loop import Load
from tests.bench.loops import EngineLoops, LoopResult, Place, PlannedEngines, rows_file
from tests.bench.machine import disturbance
from tests.bench.subject import Subject
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.settings import Settings

_WORKERS = (2, 4)
_SUBJECTS: Mapping[str, tuple[Callable[[Path], Subject], ...]] = {
    "onnxruntime": (subject.resnet50, subject.dense),
    "openvino": (subject.resnet50, subject.dense),
    "torch": (subject.torch_convolutions,),
}


def installed() -> list[str]:
    """The engines that can be measured here."""
    return [engine for engine in _SUBJECTS if importlib.util.find_spec(engine) is not None]


def run(settings: Settings) -> Report:
    """Compare them in alternating rounds, for each engine, model and number of workers."""
    report = Report()
    rows: list[Sequence[str]] = []
    for engine in installed():
        for make in _SUBJECTS[engine]:
            model = make(settings.folder)
            for workers in _WORKERS:
                what = f"{engine}, {model.name}, {workers} workers"
                planned, library = _measure(engine, model, workers, settings)
                rates = [[result.per_second for result in results] for results in (planned, library)]
                name = f"{what}: plan over library"
                report.ratios.append(Ratio(name, ratio_of_rounds(*rates), 1.0, "above"))
                rows.append((what, *(Spread.of(each).text(1) for each in rates)))
                foreign = [result.foreign_cpus for result in (*planned, *library)]
                report.notes += disturbance(what, foreign)
    report.tables.append(Table("Rows a second of saturated workers, batch 1", ("", "plan", "library"), rows))
    return report


def _measure(
    engine: str, model: Subject, workers: int, settings: Settings
) -> tuple[list[LoopResult], list[LoopResult]]:
    profile = settings.profile
    with ExitStack() as stack:
        ours = stack.enter_context(PlannedEngines(engine, model, workers))
        library = stack.enter_context(EngineLoops(_library(engine, model, workers, settings.folder)))
        rounds = [
            (ours.measure(1, profile.seconds), library.measure(1, profile.seconds))
            for _ in range(profile.rounds)
        ]
    return [each for each, _ in rounds], [each for _, each in rounds]


def _library(engine: str, model: Subject, workers: int, folder: Path) -> list[Place]:
    load = Load(engine=engine, path=str(model.path), rows=str(rows_file(model, folder)))
    return [Place(load)] * workers
