"""Two models side by side: what they weigh, how fast they are on the same batches, and how far their outputs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictd.server.config.settings import Settings
from predictd.server.measure.statistics import Comparison as RatioOfRounds
from predictd.server.optimize.accuracy import OutputAccuracy

if TYPE_CHECKING:
    import numpy.typing as npt

DEFAULT_BATCH_SIZES = (1, 8, 32)
DEFAULT_MIN_COSINE = 0.999
_DEFAULT_SETTINGS = Settings()


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

    min_cosine: float | None = DEFAULT_MIN_COSINE
    max_abs_error: float | None = None
    min_top1_agreement: float | None = None
    min_speedup: float | None = None


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
    notes: tuple[str, ...] = field(default=())


def compare_models(
    original: Model,
    candidate: Model,
    inputs: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    engine: str | None = None,
    batch_sizes: Sequence[int] = DEFAULT_BATCH_SIZES,
    threads: int | None = None,
    seconds: float = 10.0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
    settings: Settings = _DEFAULT_SETTINGS,
) -> Comparison:
    """Run two models on the same inputs, in turns.

    Args:
        original: What the candidate is held against.
        candidate: What may replace it.
        inputs: Samples, each one array for each input, as the original takes them; at least one. Batches are made of
            their rows.
        engine: For both; None takes what each would be served with.
        batch_sizes: Rows of one run. A model that does not batch runs its samples as they are.
        threads: Of a run; None takes what the launcher would.
        seconds: To measure for, all batch sizes and both models together.
        thresholds: What the candidate has to keep.
        settings: The daemon's, for all else.

    Raises:
        MeasureError: A model cannot be loaded or run, or their outputs cannot be compared; one line.
    """
    raise NotImplementedError
