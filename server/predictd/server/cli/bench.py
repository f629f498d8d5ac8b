"""`predictd bench`: how fast an engine is by itself."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from
from predictd.server.cli.parameters import as_text, duration, engine_options

if TYPE_CHECKING:
    from collections.abc import Sequence


def _shapes(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        try:
            shape = tuple(
                -1 if size == "N" and at == 0 else int(size) for at, size in enumerate(sizes.split("x"))
            )
        except ValueError:
            shape = ()
        if not colon or not shape or any(size < 0 and (at or size != -1) for at, size in enumerate(shape)):
            raise click.BadParameter(f"{text!r} is not like NAME:1x3x224x224 or NAME:Nx3x224x224")
        shapes[name] = shape
    return shapes


def _ranges(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, tuple[float, float]]:
    ranges = {}
    for text in texts:
        try:
            name, low, high = text.rsplit(":", 2)
            bounds = float(low), float(high)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not like NAME:0:255") from error
        if not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
            raise click.BadParameter(f"{text!r}: the first number must not be above the second")
        ranges[name] = bounds
    return ranges


@click.command
@click.argument("model", metavar="MODEL")
@click.option("--engine-only", is_flag=True, help="Measure the engine by itself, without a server. Required.")
@engine_options
@click.option(
    "--instances",
    type=click.IntRange(1, 1024),
    help="Processes that run it at the same time; without it as many as predictd serve would start.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME:NxDxD",
    callback=_shapes,
    help="Of an input whose dimensions vary. N stands for the batch size; a number there is the only one. May be "
    "repeated.",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME:LOW:HIGH",
    callback=_ranges,
    help="Of the numbers that are made up for an input; without it floats are from 0 to 1, integers 0 or 1. May be "
    "repeated.",
)
@click.option(
    "--inputs",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="An .npz file with an array for each input, an .npy file of the only input, or a folder of such.",
)
@click.option(
    "--for",
    "time_ns",
    metavar="DURATION",
    callback=duration,
    help="How long each batch size is measured, ten runs at least.  [default: 3s]",
)
@click.option(
    "--iterations",
    type=click.IntRange(1),
    help="Runs of each process and batch size at most; without --for, as many as these.",
)
@click.option(
    "--warm-up",
    "warm_up_ns",
    metavar="DURATION",
    default="500ms",
    show_default=True,
    callback=duration,
    help="How long each batch size runs before that.",
)
@click.option("--profile", is_flag=True, help="Show what each layer takes, where the engine can tell.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with every layer.")
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    *,
    model: str,
    engine_only: bool,
    engine: str | None,
    threads: int | None,
    instances: int | None,
    batch_sizes: tuple[int, ...] | None,
    shapes: dict[str, tuple[int, ...]],
    ranges: dict[str, tuple[float, float]],
    inputs: Path | None,
    time_ns: int | None,
    iterations: int | None,
    warm_up_ns: int,
    profile: bool,
    as_json: bool,
) -> int:
    """Measure how fast a model's engine is by itself: throughput, latency, what its layers take.

    MODEL is a model's file or folder, or FOLDER:VERSION. It is loaded as a worker of predictd serve would load
    it: with the same options, on the same CPUs, in the same environment.
    """
    if not engine_only:
        raise click.UsageError("say what to measure: --engine-only", ctx=ctx)
    if inputs is not None and (shapes or ranges):
        raise click.UsageError("--inputs has shapes and numbers: leave --shape and --range out", ctx=ctx)
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    settings = settings_from({})
    # Only now: the help must not wait for NumPy.
    from predictd.server.measure import bench_report
    from predictd.server.measure.engine_bench import DEFAULT_SECONDS, BenchWish, bench_engine
    from predictd.server.measure.engine_process import MeasureError
    from predictd.server.measure.inputs import MakeUp, Range
    from predictd.server.measure.interrupt import terminated_as_interrupted
    from predictd.server.measure.progress import ProgressLine
    from predictd.server.measure.subject import Wish, subject

    usual = DEFAULT_SECONDS if iterations is None else 0.0
    wish = BenchWish(
        batch_sizes,
        inputs,
        MakeUp(shapes, {name: Range(*bounds) for name, bounds in ranges.items()}),
        usual if time_ns is None else time_ns / 1e9,
        iterations or 0,
        warm_up_ns / 1e9,
        profile,
    )
    line = ProgressLine(sys.stderr)
    try:
        with terminated_as_interrupted():
            found = subject(Wish.of(model, engine=engine, threads=threads, instances=instances), settings)
            result = bench_engine(found, wish, line.show)
    except MeasureError as error:
        raise click.ClickException(str(error)) from error
    finally:
        line.clear()
    if as_json:
        click.echo(as_text(bench_report.data(result)))
    else:
        click.echo("\n\n".join(bench_report.text(result)))
    return 0
