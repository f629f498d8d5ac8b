"""The recipe that the project began with, put to the test on an engine that obeys it.

`OMP_NUM_THREADS` = cores, `KMP_AFFINITY=granularity=fine,compact,1,0`, `KMP_BLOCKTIME=1` in every process; the same in
the form that does not squeeze later threads; the launcher's plan; and PyTorch as it comes. With one worker, and two,
each of which is given all cores by the recipe. libiomp5 takes part where it is installed; without it the `KMP_*` mean
nothing to libgomp, which is one of the findings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from predictd.server.launch.facilities import read_facilities
from tests.bench import proc, subject
from tests.bench.engine_loop import Load
from tests.bench.loops import EngineLoops, Place, PlannedEngines, rows_file
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.settings import Settings
    from tests.bench.subject import Subject

_ENGINE = "torch"
_DEFAULT = "as it comes"


def run(settings: Settings) -> Report:
    """Compare them in interleaved rounds."""
    report = Report()
    if importlib.util.find_spec(_ENGINE) is None:
        report.notes.append(
            "openmp: PyTorch is not installed, so the recipe was not tried (tests/debian_torch)"
        )
        return report
    model = subject.torch_convolutions(settings.folder)
    rows: list[Sequence[str]] = []
    for count in (1, 2):
        rates = _measure(model, count, settings)
        for name, measured in rates.items():
            rows.append((f"{count} worker(s), {name}", Spread.of(measured).text(1)))
            if name != _DEFAULT:
                spread = ratio_of_rounds(measured, rates[_DEFAULT])
                report.ratios.append(
                    Ratio(f"torch, {count} worker(s): {name} over {_DEFAULT}", spread, 0, None)
                )
    report.tables.append(Table("PyTorch, convolutions, rows a second, batch 1", ("", "rows/s"), rows))
    return report


def _measure(model: Subject, count: int, settings: Settings) -> dict[str, list[float]]:
    profile = settings.profile
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(EngineLoops(places))
            for name, places in _sides(model, count, settings.folder).items()
        }
        planned = stack.enter_context(PlannedEngines(_ENGINE, model, count))
        everyone: dict[str, EngineLoops | PlannedEngines] = {**sides, "plan": planned}
        rates: dict[str, list[float]] = {name: [] for name in everyone}
        for _ in range(profile.rounds):
            for name, loops in everyone.items():
                rates[name].append(loops.measure(1, profile.seconds).per_second)
    return rates


def _sides(model: Subject, count: int, folder: Path) -> dict[str, list[Place]]:
    recipe = {
        "OMP_NUM_THREADS": str(proc.cpus()),
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "KMP_BLOCKTIME": "1",
    }
    repaired = {**recipe, "KMP_AFFINITY": f"{recipe['KMP_AFFINITY']},reset"}
    sides = {
        _DEFAULT: _plain(model, count, folder, {}),
        "recipe, libgomp": _plain(model, count, folder, recipe),
    }
    if library := read_facilities().libiomp5:
        preloaded = {"LD_PRELOAD": library}
        sides["recipe as written, libiomp5"] = _plain(model, count, folder, recipe | preloaded)
        sides["recipe repaired, libiomp5"] = _plain(model, count, folder, repaired | preloaded)
    return sides


def _plain(model: Subject, count: int, folder: Path, environment: Mapping[str, str]) -> list[Place]:
    load = Load(engine=_ENGINE, path=str(model.path), rows=str(rows_file(model, folder)))
    return [Place(load, environment=environment)] * count
