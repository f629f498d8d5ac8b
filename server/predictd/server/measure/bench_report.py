"""What a bench of an engine found: tables for people, plain data for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from predictd.server.measure.engine_bench import BatchResult, BenchResult
from predictd.server.measure.messages import Profiled, Stages
from predictd.server.measure.quantities import count, number, seconds, size
from predictd.server.measure.table import table

_HEAD = ("batch", "rows/s", "runs", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "CPUs")
_STAGES_HEAD = ("batch", "copy in", "enqueue", "compute", "copy out")
_LAYERS_HEAD = ("share", "of a run", "runs", "kind", "layer")
_LAYERS_SHOWN = 20


def text(result: BenchResult) -> Iterator[str]:
    """The report, in blocks of lines."""
    subject = result.subject
    plans = subject.plans
    yield (
        f"{subject.label}: {result.engine}, {count(len(plans), 'process', 'processes')} "
        f"with {count(subject.lane.threads, 'thread', 'threads')}, "
        f"{size(subject.size_bytes)}, loaded in {seconds(result.load_seconds)}"
    )
    yield from (f"note: {warning}" for warning in subject.warnings)
    for each in result.batches[:1]:
        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in each.shapes.items())
        yield f"inputs of the first: {shapes or 'none'}; {result.inputs}"
    yield table(_HEAD, map(_cells, result.batches))
    stages = [(each.rows, each.stages) for each in result.batches if each.stages is not None]
    if stages:
        yield table(_STAGES_HEAD, (_stage_cells(rows, each) for rows, each in stages))
    for each in result.batches:
        if each.profile is not None:
            yield f"layers at batch size {each.rows}, of {each.profile.runs} runs:"
            yield _layers(each.profile)


def _cells(result: BatchResult) -> tuple[str, ...]:
    times = result.latency
    return (
        str(result.rows),
        number(result.rows_per_second, 5),
        str(result.runs),
        *map(
            seconds,
            (
                times.min_seconds,
                times.mean_seconds,
                times.p50_seconds,
                times.p90_seconds,
                times.p95_seconds,
                times.p99_seconds,
                times.p999_seconds,
                times.max_seconds,
            ),
        ),
        f"{result.cpus:.2f}",
    )


def _stage_cells(rows: int, stages: Stages) -> tuple[str, ...]:
    parts = stages.copy_in_seconds, stages.enqueue_seconds, stages.compute_seconds, stages.copy_out_seconds
    return (str(rows), *map(seconds, parts))


def _layers(profile: Profiled) -> str:
    whole = sum(layer.seconds for layer in profile.layers) or 1.0
    layers = sorted(profile.layers, key=lambda layer: -layer.seconds)
    rows = [
        (
            f"{layer.seconds / whole:.1%}",
            seconds(layer.seconds / profile.runs),
            f"{layer.runs / profile.runs:g}",
            layer.kind,
            layer.name,
        )
        for layer in layers[:_LAYERS_SHOWN]
    ]
    if rest := layers[_LAYERS_SHOWN:]:
        spent = sum(layer.seconds for layer in rest)
        rows.append((f"{spent / whole:.1%}", seconds(spent / profile.runs), "", "", f"{len(rest)} others"))
    return table(_LAYERS_HEAD, rows)


def data(result: BenchResult) -> dict[str, Any]:
    """Everything as JSON has it."""
    subject = result.subject
    return {
        "model": subject.label,
        "engine": result.engine,
        "size_bytes": subject.size_bytes,
        "load_seconds": result.load_seconds,
        "threads": subject.lane.threads,
        "processes": [{"cpus": plan.cpus, "environment": dict(plan.environment)} for plan in subject.plans],
        "inputs": result.inputs,
        "warnings": subject.warnings,
        "batches": [_batch_data(each) for each in result.batches],
    }


def _batch_data(result: BatchResult) -> dict[str, Any]:
    profile = result.profile
    return {
        "rows": result.rows,
        "shapes": result.shapes,
        "runs": result.runs,
        "rows_per_second": result.rows_per_second,
        "latency": asdict(result.latency),
        "busy_cpus": result.cpus,
        "stages": _fields(result.stages),
        "layers": None
        if profile is None
        else [
            {
                "name": layer.name,
                "kind": layer.kind,
                "runs": layer.runs,
                "seconds_per_run": layer.seconds / profile.runs,
            }
            for layer in profile.layers
        ],
    }


def _fields(stages: Stages | None) -> dict[str, float] | None:
    return None if stages is None else {name: getattr(stages, name) for name in stages.__struct_fields__}
