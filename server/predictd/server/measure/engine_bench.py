"""`predictd bench --engine-only`: how fast an engine is by itself, without a server around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from predictd.engines.api import Array, Signature
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.engines import Engines
from predictd.server.measure.inputs import MakeUp, Sample, batch, made_up, read_samples
from predictd.server.measure.latency import Latency, latency
from predictd.server.measure.messages import Profiled, Stages
from predictd.server.measure.subject import Subject

DEFAULT_BATCH_SIZES = (1, 8, 32)
DEFAULT_SECONDS = 3.0
_LEAST_RUNS = 10
_PROFILE_SECONDS = 2.0
_REMEDY = "say how large with --shape {name}:{shape}, or give inputs with --inputs"


@dataclass(frozen=True, slots=True)
class BenchWish:
    """What the user asked for.

    Attributes:
        batch_sizes: Rows of one run; None for the usual ones of a model that batches.
        inputs: A file or a folder; None to make them up.
        make_up: How.
        seconds: To measure each batch size for; 0 for as many runs as below.
        most_runs: Of each process; 0 sets no limit.
        warm_up_seconds: To run before that.
        profile: Ask which layers take the time, too.
    """

    batch_sizes: tuple[int, ...] | None = None
    inputs: Path | None = None
    make_up: MakeUp = field(default_factory=MakeUp)
    seconds: float = DEFAULT_SECONDS
    most_runs: int = 0
    warm_up_seconds: float = 0.5
    profile: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One batch size.

    Attributes:
        rows: Of one run; of a model that does not batch, runs count as rows.
        shapes: Of the inputs, by name.
        runs: How many were measured.
        rows_per_second: Of all processes together.
        latency: Of the runs.
        cpus: That were busy on average.
        stages: Where the time of a run went, of an engine that knows.
        profile: Of the layers, if asked for.
    """

    rows: int
    shapes: dict[str, tuple[int, ...]]
    runs: int
    rows_per_second: float
    latency: Latency
    cpus: float
    stages: Stages | None
    profile: Profiled | None = None


@dataclass(frozen=True, slots=True)
class BenchResult:
    """A model.

    Attributes:
        subject: What was measured, and where.
        engine: The runtime's name.
        signature: Of the model.
        load_seconds: Until it could run.
        inputs: Where they come from.
        batches: By the order of the wish.
    """

    subject: Subject
    engine: str
    signature: Signature
    load_seconds: float
    inputs: str
    batches: tuple[BatchResult, ...]


def bench_engine(subject: Subject, wish: BenchWish, show: Callable[[str], None]) -> BenchResult:
    """Measure.

    Args:
        subject: The model.
        wish: What the user asked for.
        show: Tells what is going on.

    Raises:
        MeasureError: The model cannot be loaded or run as was asked; one line.
    """
    show(f"loading {subject.label}")
    with Engines(subject) as engines:
        signature = engines.signature
        given = _given(subject, wish, signature)
        results = []
        for rows in given.sizes:
            show(f"{subject.label}: batch size {rows}")
            engines.take(given.batch(rows))
            if wish.warm_up_seconds:
                engines.time(wish.warm_up_seconds)
            least = min(_LEAST_RUNS, wish.most_runs or _LEAST_RUNS)
            window = engines.time(wish.seconds, most_runs=wish.most_runs, least_runs=least)
            results.append(
                BatchResult(
                    rows,
                    given.shapes(rows),
                    window.runs,
                    window.runs_per_second * rows,
                    latency(window.latencies_ns),
                    window.cpus,
                    window.stages,
                )
            )
        name, load_seconds = engines.engine, engines.load_seconds
    if wish.profile:
        results = [replace(result, profile=_profile(subject, given, result.rows, show)) for result in results]
    return BenchResult(subject, name, signature, load_seconds, given.place, tuple(results))


def _profile(subject: Subject, given: _Given, rows: int, show: Callable[[str], None]) -> Profiled:
    """Of one process, loaded again for it: what tells the time of layers makes runs slower."""
    show(f"{subject.label}: layers at batch size {rows}")
    with Engines(replace(subject, plans=subject.plans[:1]), profile=True) as engines:
        engines.take(given.batch(rows))
        return engines.profile(_PROFILE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Given:
    """The batch sizes to measure, and what with."""

    place: str
    sizes: Sequence[int]
    batch: Callable[[int], Sequence[Array | None]]
    signature: Signature

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        arrays = zip(self.signature.inputs, self.batch(rows), strict=True)
        return {spec.name: array.shape for spec, array in arrays if array is not None}


def _given(subject: Subject, wish: BenchWish, signature: Signature) -> _Given:
    if not signature.batches and wish.batch_sizes is not None:
        raise MeasureError(f"{subject.label}: the model does not batch: leave --batch-sizes out")
    sizes = _sizes(subject, wish, signature)
    try:
        if wish.inputs is None:
            make = _maker(signature, wish.make_up)
            for rows in sizes:
                make(rows)
            return _Given("random numbers", sizes, make, signature)
        samples = read_samples(wish.inputs, signature)
        if signature.batches:
            return _Given(str(wish.inputs), sizes, lambda rows: batch(samples, rows, signature), signature)
        return _Given(samples[0].place, sizes, lambda _: samples[0].arrays, signature)
    except MeasureError as error:
        text = str(error)
        raise MeasureError(text if wish.inputs is not None else f"{subject.label}: {text}") from error


def _maker(signature: Signature, wish: MakeUp) -> Callable[[int], Sequence[Array | None]]:
    def make(rows: int) -> Sequence[Array | None]:
        sample: Sample = made_up(signature, rows, wish, remedy=_REMEDY)
        return sample.arrays

    return make


def _sizes(subject: Subject, wish: BenchWish, signature: Signature) -> Sequence[int]:
    """The batch sizes: as asked, as the shapes say, or the usual ones as far as the engine takes them."""
    if not signature.batches:
        return [1]
    said = {shape[0] for shape in wish.make_up.shapes.values() if shape and shape[0] != -1}
    most = signature.max_rows
    if wish.batch_sizes is None and not said:
        return [size for size in DEFAULT_BATCH_SIZES if most is None or size <= most] or [1]
    if len(said) > 1 or (said and wish.batch_sizes is not None):
        raise MeasureError(
            f"{subject.label}: batch sizes {', '.join(map(str, sorted(said)))} in --shape: write N first in each, "
            "and the sizes with --batch-sizes"
        )
    sizes = list(wish.batch_sizes or said)
    if most is not None and max(sizes) > most:
        raise MeasureError(f"{subject.label}: the engine takes {most} rows at most, not {max(sizes)}")
    return sizes
