"""What a comparison found: Markdown for people, plain data for JSON, a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from predictd.server.measure.plot import Curve, Mark, plot
from predictd.server.measure.quantities import count, number, seconds, size
from predictd.server.measure.table import table
from predictd.server.optimize.accuracy import OutputAccuracy
from predictd.server.optimize.comparison import Comparison, MeasuredModel

_SPEED_HEAD = ("batch", "original rows/s", "p50", "p99", "candidate rows/s", "p50", "p99", "ratio", "verdict")
_OUTPUT_HEAD = ("output", "cosine", "in the worst sample", "largest error", "same class", "broken values")


def text(comparison: Comparison) -> Iterator[str]:
    """The report in Markdown, in blocks of lines."""
    one, other = comparison.original, comparison.candidate
    yield table(("", "original", "candidate", "ratio"), _model_rows(one, other))
    yield table(_SPEED_HEAD, _speed_rows(comparison))
    yield table(_OUTPUT_HEAD, map(_output_cells, comparison.accuracy))
    notes = [f"outputs were compared on {comparison.samples} samples", *comparison.notes]
    yield "\n".join(f"note: {note}" for note in notes)
    verdict = comparison.verdict
    yield "good" if verdict.good else "\n".join(f"not good: {reason}" for reason in verdict.reasons)


def markdown(title: str, comparison: Comparison) -> str:
    """The report as a page."""
    return "\n\n".join((f"# {title}", *text(comparison))) + "\n"


def _model_rows(one: MeasuredModel, other: MeasuredModel) -> Iterator[tuple[str, ...]]:
    yield "model", one.model.label, other.model.label, ""
    yield "engine", _engine(one), _engine(other), ""
    yield "size", size(one.size_bytes), size(other.size_bytes), _ratio(other.size_bytes, one.size_bytes)
    yield (
        "load time",
        seconds(one.load_seconds),
        seconds(other.load_seconds),
        _ratio(other.load_seconds, one.load_seconds),
    )


def _ratio(value: float, other: float) -> str:
    return number(value / other, 3) if other else ""


def _engine(measured: MeasuredModel) -> str:
    return f"{measured.engine}, {count(measured.threads, 'thread', 'threads')}"


def _speed_rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    rows = zip(comparison.original.speeds, comparison.candidate.speeds, comparison.speedups, strict=True)
    for one, other, speedup in rows:
        ratio = speedup.ratio
        yield (
            str(one.batch_size),
            *(number(one.rows_per_second, 4), seconds(one.p50_seconds), seconds(one.p99_seconds)),
            *(number(other.rows_per_second, 4), seconds(other.p50_seconds), seconds(other.p99_seconds)),
            f"{ratio.ratio:.3g} ({ratio.low:.3g}-{ratio.high:.3g})",
            ratio.verdict.value,
        )


def _output_cells(output: OutputAccuracy) -> tuple[str, ...]:
    return (
        output.name,
        _number(output.cosine, ".6f"),
        _number(output.worst_cosine, ".6f"),
        _number(output.max_abs_error, ".3g"),
        _number(output.top1_agreement, ".2%"),
        str(output.broken_values),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def data(comparison: Comparison) -> dict[str, Any]:
    """Everything as JSON has it."""
    return {
        "original": _model_data(comparison.original),
        "candidate": _model_data(comparison.candidate),
        "samples": comparison.samples,
        "outputs": [asdict(output) for output in comparison.accuracy],
        "speedups": [{"batch_size": each.batch_size, **asdict(each.ratio)} for each in comparison.speedups],
        "verdict": asdict(comparison.verdict),
        "notes": comparison.notes,
    }


def _model_data(measured: MeasuredModel) -> dict[str, Any]:
    model = {
        "path": str(measured.model.path),
        "label": measured.model.label,
        "version": measured.model.version,
    }
    return {**asdict(measured), "model": model}


def picture(title: str, comparison: Comparison) -> str:
    """Throughput and latency of both over the batch sizes, as SVG."""
    sides = (comparison.original, "original"), (comparison.candidate, "candidate")
    curves = [
        Curve(
            f"{name}: {side.model.label}",
            tuple(
                Mark(speed.rows_per_second, speed.p99_seconds, f"batch size {speed.batch_size}")
                for speed in side.speeds
            ),
        )
        for side, name in sides
    ]
    return plot(title, curves, per_second="rows a second")


def write_report(folder: Path, title: str, comparison: Comparison) -> list[Path]:
    """Write the page, the data and the plot into a folder, which is made.

    Returns:
        What was written.

    Raises:
        OSError: It cannot be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "comparison.md": markdown(title, comparison).encode(),
        "comparison.json": msgspec.json.format(msgspec.json.encode(data(comparison)), indent=2),
        "comparison.svg": picture(title, comparison).encode(),
    }
    for name, part in content.items():
        (folder / name).write_bytes(part)
    return [folder / name for name in content]
