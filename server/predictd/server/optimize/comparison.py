"""Two models side by side: what they weigh, how fast they are on the same batches, and how far their outputs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.server.config.settings import Settings
from predictd.server.measure.engine_bench import DEFAULT_BATCH_SIZES
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.engines import Engines, Window
from predictd.server.measure.inputs import Sample
from predictd.server.measure.latency import latency
from predictd.server.measure.statistics import ROUNDS_MIN, compare
from predictd.server.measure.statistics import Comparison as RatioOfRounds
from predictd.server.measure.subject import Subject, Wish, subject
from predictd.server.optimize.accuracy import OutputAccuracy, accuracy
from predictd.server.optimize.pair import Pair, check_alike, samples_of

if TYPE_CHECKING:
    import numpy.typing as npt

DEFAULT_SECONDS = 10.0
DEFAULT_SETTINGS = Settings()
_ROUNDS_MAX = 25
_WINDOW_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Model:
    """A model to compare.

    Attributes:
        path: Its file, or its folder.
        label: What a report calls it.
        version: Of a folder with several; None for the highest that is served.
    """

    path: Path
    label: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the candidate has to keep; None asks for nothing.

    Attributes:
        min_cosine: The least cosine of any output, in the sample in which it is smallest.
        max_abs_error: The largest difference of any output.
        min_top1_agreement: The least share of rows with the same class, of outputs that look like classes.
        min_speedup: The least gain of throughput at any batch size.
    """

    min_cosine: float | None = 0.999
    max_abs_error: float | None = None
    min_top1_agreement: float | None = None
    min_speedup: float | None = None


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class Speed:
    """One model at one batch size.

    Attributes:
        batch_size: Rows of one run.
        p50_seconds: Latency that half of the runs did not exceed.
        p99_seconds: Latency that 99% of the runs did not exceed.
        rows_per_second: Throughput of runs one after the other.
        runs: How many were measured.
    """

    batch_size: int
    p50_seconds: float
    p99_seconds: float
    rows_per_second: float
    runs: int


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What a model takes and gives.

    Attributes:
        model: Which one.
        engine: That ran it.
        threads: Of a run.
        size_bytes: Of its files, external data included.
        load_seconds: Until it could run.
        speeds: By ascending batch size.
    """

    model: Model
    engine: str
    threads: int
    size_bytes: int
    load_seconds: float
    speeds: tuple[Speed, ...]


@dataclass(frozen=True, slots=True)
class Speedup:
    """The candidate's throughput by the original's at one batch size, round by round."""

    batch_size: int
    ratio: RatioOfRounds


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate keeps the thresholds, and every reason why it does not."""

    good: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side.

    Attributes:
        original: What the candidate is held against.
        candidate: What may replace it.
        samples: How many inputs the outputs were compared on.
        accuracy: Of each output.
        speedups: By ascending batch size.
        verdict: What that means.
        notes: What to know of the numbers.
    """

    original: MeasuredModel
    candidate: MeasuredModel
    samples: int
    accuracy: tuple[OutputAccuracy, ...]
    speedups: tuple[Speedup, ...]
    verdict: Verdict
    notes: tuple[str, ...] = ()


def compare_models(
    original: Model,
    candidate: Model,
    inputs: Sequence[Mapping[str, npt.NDArray[Any]]] | Path | None,
    *,
    engine: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    threads: int | None = None,
    seconds: float = DEFAULT_SECONDS,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    settings: Settings = DEFAULT_SETTINGS,
    show: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Run two models on the same inputs, in turns.

    Args:
        original: What the candidate is held against.
        candidate: What may replace it.
        inputs: Samples, each one array for each input, as the original takes them; a file or folder of such; None to
            make them up. Batches are made of their rows.
        engine: For both; None takes what each would be served with.
        batch_sizes: Rows of one run; None takes the usual ones. Models that do not batch run a sample as it is.
        threads: Of a run; None takes what the launcher would.
        seconds: To measure for, all batch sizes and both models together.
        thresholds: What the candidate has to keep.
        settings: The daemon's, for all else.
        show: Tells what is going on.

    Raises:
        MeasureError: A model cannot be loaded or run, or their outputs cannot be compared; one line.
    """
    subjects = [
        subject(Wish(model.path, model.version, engine, threads, instances=1), settings)
        for model in (original, candidate)
    ]
    with ExitStack() as stack:
        sides = []
        for found in subjects:
            show(f"loading {found.label}")
            sides.append(stack.enter_context(Engines(found)))
        pair = Pair(sides[0], sides[1])
        check_alike(pair.original.signature, pair.candidate.signature)
        notes = list(dict.fromkeys(warning for found in subjects for warning in found.warnings))
        samples = samples_of(pair, inputs, notes)
        show(f"comparing outputs on {len(samples)} samples")
        outputs = accuracy(*pair.outputs(samples))
        sizes = _sizes(pair, batch_sizes, notes)
        races = [_race(pair, samples, rows, seconds / len(sizes), show) for rows in sizes]
    speedups = tuple(Speedup(rows, race.ratio) for rows, race in zip(sizes, races, strict=True))
    return Comparison(
        _measured(original, pair.original, subjects[0], tuple(race.original for race in races)),
        _measured(candidate, pair.candidate, subjects[1], tuple(race.candidate for race in races)),
        len(samples),
        outputs,
        speedups,
        judge(outputs, speedups, thresholds),
        tuple(notes),
    )


def _measured(model: Model, engines: Engines, subject_: Subject, speeds: tuple[Speed, ...]) -> MeasuredModel:
    return MeasuredModel(
        model,
        engines.engine,
        subject_.lane.threads,
        subject_.size_bytes,
        engines.load_seconds,
        speeds,
    )


def judge(outputs: Sequence[OutputAccuracy], speedups: Sequence[Speedup], thresholds: Thresholds) -> Verdict:
    """Hold what was measured against the thresholds."""
    reasons = [reason for output in outputs for reason in _output_reasons(output, thresholds)]
    if thresholds.min_top1_agreement is not None and all(each.top1_agreement is None for each in outputs):
        reasons.append(
            "no output looks like scores of classes, so whether the class is the same is not known"
        )
    least = thresholds.min_speedup
    reasons += [
        f"batch size {each.batch_size}: {each.ratio.ratio:.3g} times the throughput, not {least:g}"
        for each in speedups
        if least is not None and each.ratio.ratio < least
    ]
    return Verdict(not reasons, tuple(reasons))


def _output_reasons(output: OutputAccuracy, thresholds: Thresholds) -> Iterator[str]:
    place = f"output {output.name!r}:"
    if output.broken_values and output.cosine is None:
        yield f"{place} {output.broken_values} texts differ"
    elif output.broken_values:
        yield f"{place} {output.broken_values} values are NaN or infinite in one of the models alone"
    elif not output.compared_values:
        yield f"{place} not one value is a finite number, so nothing was compared"
    worst, error, top1 = output.worst_cosine, output.max_abs_error, output.top1_agreement
    if worst is not None and thresholds.min_cosine is not None and worst < thresholds.min_cosine:
        yield f"{place} the cosine is {worst:.6g} in the worst sample, below {thresholds.min_cosine:g}"
    if error is not None and thresholds.max_abs_error is not None and error > thresholds.max_abs_error:
        yield f"{place} the largest error is {error:.3g}, above {thresholds.max_abs_error:g}"
    least = thresholds.min_top1_agreement
    if top1 is not None and least is not None and top1 < least:
        yield f"{place} the class is the same in {top1:.4g} of the rows, below {least:g}"


def _sizes(pair: Pair, asked: Sequence[int] | None, notes: list[str]) -> Sequence[int]:
    """The batch sizes that both models take; one for models that do not batch."""
    if not pair.batches:
        if asked is not None:
            raise MeasureError("one of the models does not batch: leave the batch sizes out")
        notes.append("one of the models does not batch: both ran the first sample as it is, as one row")
        return [1]
    most = pair.max_rows
    sizes = [size for size in asked or DEFAULT_BATCH_SIZES if most is None or size <= most]
    if asked is not None and len(sizes) < len(asked):
        raise MeasureError(f"one of the engines takes {most} rows at most, not {max(asked)}")
    return sizes or [1]


@dataclass(frozen=True, slots=True)
class _Race:
    """Both models at one batch size."""

    original: Speed
    candidate: Speed
    ratio: RatioOfRounds


def _race(
    pair: Pair, samples: Sequence[Sample], rows: int, seconds: float, show: Callable[[str], None]
) -> _Race:
    """Measure both in turns: what slows the machine down for a while slows both."""
    show(f"batch size {rows}")
    pair.take(samples, rows)
    rounds = min(_ROUNDS_MAX, max(ROUNDS_MIN, int(seconds / 2 / _WINDOW_SECONDS)))
    window_seconds = seconds / rounds / 2
    for engines in pair.sides:
        engines.time(window_seconds)
    windows: list[tuple[Window, Window]] = []
    for number in range(rounds):
        if number % 2 == 0:
            one = pair.original.time(window_seconds)
            windows.append((one, pair.candidate.time(window_seconds)))
        else:
            other = pair.candidate.time(window_seconds)
            windows.append((pair.original.time(window_seconds), other))
    ratios = [other.runs_per_second / one.runs_per_second for one, other in windows]
    return _Race(
        _speed(rows, [one for one, _ in windows]),
        _speed(rows, [other for _, other in windows]),
        compare(ratios),
    )


def _speed(rows: int, windows: Sequence[Window]) -> Speed:
    runs = sum(window.runs for window in windows)
    seconds = sum(window.runs / window.runs_per_second for window in windows)
    times = latency(np.concatenate([window.latencies_ns for window in windows]))
    return Speed(rows, times.p50_seconds, times.p99_seconds, rows * runs / seconds, runs)
