"""`predictd tune`: from the user's model to a result, with real daemons under real load."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from predictd.engines.traits import engine_for_suffix
from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.settings import Settings
from predictd.server.config.tuned import Here, Tuned, TunedValue
from predictd.server.launch.budget import read_budget
from predictd.server.launch.facilities import read_facilities
from predictd.server.launch.topology import read_topology
from predictd.server.measure.interrupt import terminated_as_interrupted
from predictd.server.measure.progress import ProgressLine
from predictd.server.repository.models import FoundModel
from predictd.server.repository.scan import scan
from predictd.server.repository.tfs_config import SUFFIX as TFS_SUFFIX
from predictd.server.repository.tuning import OFF, explicit_settings, held, model_key, this_machine
from predictd.server.tune.callers import Callers, SubjectError, TrialError
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.choice import Result, conclude
from predictd.server.tune.daemon import arguments, running
from predictd.server.tune.messages import Ask
from predictd.server.tune.model_toml import model_toml, tuned_lines, write_table
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.progress import progress_text
from predictd.server.tune.report import conclusion, data, picture, table
from predictd.server.tune.search import Search, Trial
from predictd.server.tune.space import Subject, Values, stages
from predictd.server.tune.store import candidate_file, earlier, forget, keep

EXIT_OK, EXIT_INTERRUPTED = 0, 130
# A small share of the time, but long enough to be warm and short enough to have many.
_WINDOW_SHARE, _WINDOW_MIN_SECONDS, _WINDOW_MAX_SECONDS = 0.005, 0.25, 5.0
_CPUS_PER_PROCESS, _PROCESSES_MAX = 4, 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for.

    Attributes:
        path: A model file or a model's folder.
        seconds: How long it may take.
        slo_ns: What 99% of the answers must come within; None where throughput counts.
        callers: At once, at most.
        input_file: An .npz file with a request; None to make one up.
        only: Settings to try, with their values; all of them if empty.
        write: Put the result into the model's own file.
    """

    path: Path
    seconds: float
    slo_ns: int | None
    callers: int
    input_file: Path | None
    only: Mapping[str, Values]
    write: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """What stays the same over all trials."""

    wish: Wish
    settings: Settings
    model: FoundModel
    key: str
    here: Here
    cores: int
    folder: Path | None
    objective: Objective

    @property
    def window_seconds(self) -> float:
        return min(_WINDOW_MAX_SECONDS, max(_WINDOW_MIN_SECONDS, self.wish.seconds * _WINDOW_SHARE))


def tune(wish: Wish, settings: Settings, say: Callable[[str], None]) -> int:
    """Search, report and keep the result.

    Args:
        wish: What the user asked for.
        settings: The daemon's, as the user's environment and predictd.toml have them.
        say: Prints a line of the report.

    Returns:
        0, or 130 after an interrupt; what was best until then is reported and kept.

    Raises:
        SubjectError: The model cannot be measured.
        WriteError: The result cannot be written into the model's own file.
        OSError: The model cannot be read.
    """
    task = _task(wish, settings)
    line = ProgressLine(sys.stderr)
    with terminated_as_interrupted(), tempfile.TemporaryDirectory(prefix="predictd-tune-") as scratch:
        search, interrupted = _search(task, Path(scratch), line)
    line.clear()
    if search is None:
        say("interrupted before anything was measured")
        return EXIT_INTERRUPTED
    result = conclude(search, task.objective, interrupted=interrupted)
    if result.rows:
        say(table(result))
    for text in conclusion(result, task.objective):
        say(text)
    _keep(task, result, say)
    return EXIT_INTERRUPTED if interrupted else EXIT_OK


def _task(wish: Wish, settings: Settings) -> _Task:
    found = scan([Path(os.path.abspath(wish.path))])  # noqa: PTH100 - a link keeps its name
    if len(found.models) != 1 or wish.path.suffix == TFS_SUFFIX:
        problems = "; ".join(map(str, found.problems)) or "it holds no model, several, or a list of them"
        raise SubjectError(f"{wish.path}: give one model's file or folder: {problems}")
    (model,) = found.models
    affinity = os.sched_getaffinity(0)
    topology = read_topology(affinity)
    budget = read_budget(affinity, topology.ids)
    cores = min(len(topology.cores(budget.cpus)), budget.effective_cpus)
    return _Task(
        wish,
        settings,
        model,
        # As those who serve it will look it up.
        model_key(model.versions[0].path),
        this_machine(budget.effective_cpus),
        cores,
        cache_folder(settings, os.environ),
        Objective(wish.callers, None if wish.slo_ns is None else wish.slo_ns / 1e9),
    )


def _search(task: _Task, scratch: Path, line: ProgressLine) -> tuple[Search | None, bool]:
    """Search until it is over or interrupted: the search, and whether it was."""
    began = time.monotonic()
    search: Search | None = None
    processes = max(1, min(_PROCESSES_MAX, task.here.cpus // _CPUS_PER_PROCESS, task.wish.callers))
    try:
        with Callers(processes) as callers:
            bench = _Bench(task, scratch, callers)
            line.show(f"looking at {task.model.name}")
            batches = bench.look()
            # From here on what a look takes, and a measurement.
            trial_seconds = time.monotonic() - began + task.window_seconds
            search = Search(
                stages(_subject(task, batches=batches)),
                task.objective,
                task.wish.seconds,
                trial_seconds,
                _before(task),
            )
            while (trial := search.next(time.monotonic() - began)) is not None:
                left = task.wish.seconds - (time.monotonic() - began)
                line.show(progress_text(trial, search.progress, left))
                _try(search, bench, trial)
    except KeyboardInterrupt:
        return search, True
    return search, False


def _try(search: Search, bench: _Bench, trial: Trial) -> None:
    began = time.monotonic()
    try:
        points = bench.measure(trial)
    except TrialError as error:
        search.failed(trial, str(error))
        if trial.candidate == DEFAULT and not search.samples:
            raise SubjectError(f"the model cannot be measured as it is: {error}") from error
    else:
        search.measured(trial, points, time.monotonic() - began)


def _subject(task: _Task, *, batches: bool) -> Subject:
    model, settings = task.model, task.settings
    return Subject(
        suffix=model.versions[0].path.suffix,
        cores=task.cores,
        cpus=task.here.cpus,
        callers=task.wish.callers,
        max_batch_size=settings.max_batch_size,
        allocators=tuple(read_facilities().allocators),
        batches=batches,
        slo_ns=task.wish.slo_ns,
        held=held(model.file, explicit_settings(settings)),
        only=task.wish.only,
    )


def _before(task: _Task) -> Candidate | None:
    """What an earlier run found, as far as it can still be chosen."""
    own = task.model.file.tuned
    found = own if own is not None and own.here == task.here else earlier(task.folder, task.key, task.here)
    if found is None:
        return None
    kept = held(task.model.file, explicit_settings(task.settings))
    usual = _engine(task)
    settings = {
        name: value for name, value in found.values.items() if name not in kept and usual.get(name) != value
    }
    return Candidate.of(settings) if settings and not task.wish.only else None


class _Bench:
    """Runs trials, one at a time."""

    def __init__(self, task: _Task, scratch: Path, callers: Callers) -> None:
        self._task = task
        self._scratch = scratch
        self._callers = callers

    def look(self) -> bool:
        """Serve the model once as it is, and ask it. Returns whether it batches."""
        try:
            with self._serving(DEFAULT) as target:
                return self._callers.ask(self._ask(target)).batches
        except TrialError as error:
            raise SubjectError(f"the model cannot be measured as it is: {error}") from error

    def measure(self, trial: Trial) -> list[Point]:
        """Measure a candidate. Raises TrialError if it does not work."""
        objective, points = self._task.objective, list[Point]()
        with self._serving(trial.candidate) as target:
            self._callers.ask(self._ask(target))
            for number in objective.ladder(whole=trial.whole):
                if objective.goes_on(points):
                    points.append(self._callers.drive(number, self._task.window_seconds))
        return points

    def _ask(self, target: str) -> Ask:
        task = self._task
        warmup = task.model.file.warmup
        # What the model is warmed up with was recorded to be like what it is asked.
        recorded = task.wish.input_file or (warmup.file if warmup is not None else None)
        return Ask(target, task.model.name, "" if recorded is None else str(recorded.absolute()))

    @contextmanager
    def _serving(self, candidate: Candidate) -> Iterator[str]:
        task = self._task
        choice = OFF
        if candidate != DEFAULT:
            file = self._scratch / "candidate.json"
            choice = str(candidate_file(file, task.key, Tuned(task.here, candidate.values)))
        more = [*arguments(task.settings), "--tuned", choice]
        seconds = task.settings.load_timeout_ns / 1e9
        with running(task.wish.path.absolute(), more, self._scratch, seconds) as target:
            yield target


def _keep(task: _Task, result: Result, say: Callable[[str], None]) -> None:
    if result.winner is None:
        _forget(task, result, say)
        return
    tuned = Tuned(task.here, {**_engine(task), **result.winner.values})
    content = data(result, task.objective, tuned, task.model.name, task.key)
    if task.folder is None:
        say("not kept: there is no cache folder (--cache-dir)")
    else:
        try:
            path = keep(
                task.folder,
                task.key,
                task.here,
                content,
                picture(result, task.objective, task.model.name, task.here),
            )
            say(f"kept in {path}, with a plot beside it; predictd serve takes it from there")
        except OSError as error:
            say(f"not kept: {error.filename or task.folder}: {str(error.strerror).lower()}")
    if task.wish.write:
        first = task.model.versions[0]
        path = model_toml(task.model.name, first.version, first.path)
        write_table(path, tuned)
        say(f"written into {path}")
        return
    own = task.model.file.tuned
    if own is not None and own.here == task.here:
        place = task.model.file.origins["tuned"]
        say(f"{place}: what an earlier run wrote there comes before it; run again with --write, or remove it")
    else:
        say("to have it in the model's own file, run again with --write, or add:")
        for text in tuned_lines(tuned):
            say(f"    {text}")


def _engine(task: _Task) -> dict[str, TunedValue]:
    """The engine that was measured: the result is for no other."""
    suffix = task.model.versions[0].path.suffix
    engine = task.model.file.engine or engine_for_suffix(suffix, task.settings.engine)
    return {} if engine is None else {"engine": engine}


def _forget(task: _Task, result: Result, say: Callable[[str], None]) -> None:
    """An earlier result that is worse than the default by now is removed; nothing else is written."""
    before = _before(task)
    row = next((row for row in result.rows if row.candidate == before), None)
    if before is None or task.folder is None or row is None or row.against is None:
        return
    if result.complete and row.against.high < 1:
        forget(task.folder, task.key, task.here)
        say(f"what an earlier run found is worse than the default and no longer kept: {before}")
