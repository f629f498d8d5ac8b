"""`predictd bench --engine-only`: an engine by itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from predictd.server.cli.options import settings_from
from predictd.server.cli.parameters import as_text

_WARM_UP_SECONDS = 0.5


def bench_engine_only(
    model: str,
    *,
    engine: str | None,
    threads: int | None,
    instances: int | None,
    batch_sizes: tuple[int, ...] | None,
    shapes: Mapping[str, tuple[int, ...]],
    ranges: Mapping[str, tuple[float, float]],
    inputs: Path | None,
    time_ns: int | None,
    iterations: int | None,
    warm_up_ns: int | None,
    profile: bool,
    as_json: bool,
) -> int:
    """Measure and print; what the arguments mean is said at the options."""
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
        _WARM_UP_SECONDS if warm_up_ns is None else warm_up_ns / 1e9,
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
