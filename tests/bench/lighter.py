"""What `predictd optimize` gains: INT8 against FP32 in the same run, of three kinds of nets, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.server.config.settings import Settings as DaemonSettings
from predictd.server.optimize.calibration import Method
from predictd.server.optimize.comparison import Comparison, Thresholds
from predictd.server.optimize.optimizing import optimize
from predictd.server.optimize.target import Target
from predictd.server.optimize.wish import Precision, Wish
from tests.bench.table import Ratio, Report, Spread, Table
from tests.fixtures.convolutional import convolutional
from tests.fixtures.models import mlp
from tests.fixtures.transformer import MINILM, encoder

if TYPE_CHECKING:
    from pathlib import Path

    from predictd.engines.api import Array
    from tests.bench.settings import Settings

_AIM = 1.5
_MIN_COSINE = 0.999
_BATCH_SIZES = (1, 8)
_SAMPLES = 8
_HEADER = ("", "batch", "FP32 rows/s", "INT8 rows/s", "ratio", "size", "cosine")


def run(settings: Settings) -> Report:
    """Quantize each of the nets and hold it against what it was."""
    report = Report()
    rows: list[Sequence[str]] = []
    for name, make in _NETS.items():
        folder = settings.folder / name.replace(" ", "-")
        folder.mkdir()
        found = _quantized(make(folder), folder, settings)
        rows += _rows(name, found)
        if not found.verdict.good:
            report.problems += [f"{name}: {reason}" for reason in found.verdict.reasons]
        for each in found.speedups:
            spread = Spread(each.ratio.ratio, each.ratio.low, each.ratio.high)
            what = f"INT8 over FP32, {name}, batch {each.batch_size}"
            report.ratios.append(Ratio(what, spread, _AIM, "above" if name == _CONVOLUTIONAL else None))
    report.tables.append(Table("predictd optimize --int8, one thread", _HEADER, rows))
    return report


def _quantized(model: Path, folder: Path, settings: Settings) -> Comparison:
    wish = Wish(
        model=model,
        output=folder / "int8.onnx",
        precision=Precision.INT8,
        prune=False,
        ahead_of_time=False,
        target=Target.ONNXRUNTIME,
        calibration=folder / "inputs",
        method=Method.PERCENTILE,
        inputs=None,
        exclude=frozenset(),
        reduce_range=None,
        external_data=None,
        keep=False,
        thresholds=Thresholds(min_cosine=_MIN_COSINE),
        engine=None,
        batch_sizes=_BATCH_SIZES,
        threads=1,
        seconds=settings.profile.seconds * settings.profile.rounds,
    )
    return optimize(wish, DaemonSettings(cache_dir=folder / "cache"), lambda _: None)


def _rows(name: str, found: Comparison) -> list[Sequence[str]]:
    cosine = min(output.worst_cosine for output in found.accuracy if output.worst_cosine is not None)
    size = found.candidate.size_bytes / found.original.size_bytes
    return [
        (
            name,
            str(one.batch_size),
            f"{one.rows_per_second:,.0f}",
            f"{other.rows_per_second:,.0f}",
            f"{each.ratio.ratio:.2f}",
            f"{size:.2f}",
            f"{cosine:.5f}",
        )
        for one, other, each in zip(
            found.original.speeds, found.candidate.speeds, found.speedups, strict=True
        )
    ]


def _write(folder: Path, sample: Callable[[np.random.Generator], Mapping[str, Array]]) -> None:
    random = np.random.default_rng(1)
    (folder / "inputs").mkdir()
    for number in range(_SAMPLES):
        arrays: Mapping[str, Any] = sample(random)
        np.savez(folder / "inputs" / f"{number}.npz", **arrays)


def _convolutional(folder: Path) -> Path:
    _write(folder, lambda random: {"image": random.normal(0, 1, (1, 3, 128, 128)).astype(np.float32)})
    return convolutional(folder / "model.onnx", 128, (32, 64, 128))


def _transformer(folder: Path) -> Path:
    shape = (1, MINILM.sequence)
    _write(
        folder,
        lambda random: {
            "input_ids": random.integers(0, MINILM.vocabulary, shape),
            "attention_mask": np.ones(shape, np.int64),
        },
    )
    return encoder(folder / "model.onnx", MINILM)


def _mlp(folder: Path) -> Path:
    _write(folder, lambda random: {"x": random.normal(0, 1, (4, 1024)).astype(np.float32)})
    return mlp(folder / "model.onnx", 1024, 8)


_CONVOLUTIONAL = "convolutional net"
_NETS: Mapping[str, Callable[[Path], Path]] = {
    _CONVOLUTIONAL: _convolutional,
    "MiniLM": _transformer,
    "MLP": _mlp,
}
