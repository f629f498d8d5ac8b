"""`predictd compare`: a model held against another."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from predictd.server.cli.options import settings_from
from predictd.server.cli.parameters import as_text, comparison_options, engine_options, threshold_options

EXIT_NOT_GOOD = 1


@click.command
@click.argument("original", metavar="ORIGINAL")
@click.argument("candidate", metavar="CANDIDATE")
@engine_options
@click.option(
    "--inputs",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Real inputs: an .npz file with an array for each input, an .npy file of the only input, or a folder of "
    "such. Without it random numbers, which say little about accuracy.",
)
@threshold_options
@comparison_options
def compare(
    *,
    original: str,
    candidate: str,
    engine: str | None,
    threads: int | None,
    batch_sizes: tuple[int, ...] | None,
    inputs: Path | None,
    time_ns: int,
    min_cosine: float,
    max_error: float | None,
    min_top1: float | None,
    min_speedup: float | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Hold the model CANDIDATE against ORIGINAL: size, load time, speed, and how far its outputs differ.

    Each is a model's file or folder, or FOLDER:VERSION. Both get the same inputs, in turns, in processes like the
    workers of predictd serve. The exit status is 0 if CANDIDATE keeps the thresholds, 1 if not, or if the two cannot
    be compared.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    settings = settings_from({})
    # Only now: the help must not wait for NumPy.
    from predictd.server.measure.engine_process import MeasureError
    from predictd.server.measure.interrupt import terminated_as_interrupted
    from predictd.server.measure.progress import ProgressLine
    from predictd.server.measure.subject import Wish
    from predictd.server.optimize.comparison import Model, Thresholds, compare_models
    from predictd.server.optimize.report import data, text, write_report

    wishes = Wish.of(original), Wish.of(candidate)
    first, second = (Model(wish.path, wish.label, wish.version) for wish in wishes)
    line = ProgressLine(sys.stderr)
    try:
        with terminated_as_interrupted():
            comparison = compare_models(
                first,
                second,
                inputs,
                engine=engine,
                batch_sizes=batch_sizes,
                threads=threads,
                seconds=time_ns / 1e9,
                thresholds=Thresholds(min_cosine, max_error, min_top1, min_speedup),
                settings=settings,
                show=line.show,
            )
    except MeasureError as error:
        raise click.ClickException(str(error)) from error
    finally:
        line.clear()
    click.echo(as_text(data(comparison)) if as_json else "\n\n".join(text(comparison)))
    if report is not None:
        try:
            write_report(report, f"{original} and {candidate}", comparison)
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {str(error.strerror).lower()}") from error
    return 0 if comparison.verdict.good else EXIT_NOT_GOOD
