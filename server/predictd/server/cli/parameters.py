"""What several commands take, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from predictd.engines.traits import BUILT_IN
from predictd.server.config.units import parse_duration_ns

F = TypeVar("F", bound=Callable[..., Any])

_MOST_ROWS = 2**20


def duration(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Nanoseconds, more than 0, from a text with its unit."""
    if text is None:
        return None
    try:
        nanoseconds = parse_duration_ns(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if nanoseconds <= 0:
        raise click.BadParameter("it must be more than 0")
    return nanoseconds


def batch_sizes(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Numbers of rows, ascending, from a list with commas."""
    if text is None:
        return None
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of numbers such as 1,8,32") from error
    if sizes[0] < 1 or sizes[-1] > _MOST_ROWS:
        raise click.BadParameter(f"batch sizes are from 1 to {_MOST_ROWS}")
    return tuple(sizes)


def as_text(data: object) -> str:
    """JSON for programs that people can read, too. It has no infinity: that becomes null."""
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def threshold_options(command: F) -> F:
    """Give a command what a model must keep to beside another: --min-cosine, --max-error, --min-top1, --min-speedup."""
    for option in (
        click.option(
            "--min-speedup",
            type=click.FloatRange(0, min_open=True),
            help="The least ratio of the throughputs, at every batch size.",
        ),
        click.option(
            "--min-top1",
            type=click.FloatRange(0, 1),
            help="The least share of rows with the same class, of outputs that look like scores of classes.",
        ),
        click.option(
            "--max-error", type=click.FloatRange(0), help="The largest difference between two values."
        ),
        click.option(
            "--min-cosine",
            type=click.FloatRange(-1, 1),
            default=0.999,
            show_default=True,
            help="The least cosine between the outputs of both, in the sample in which it is smallest.",
        ),
    ):
        command = option(command)
    return command


def comparison_options(command: F) -> F:
    """Give a command what says how two models are measured, and where that is told: --for, --report, --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
        click.option(
            "--report",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="FOLDER",
            help="Write comparison.md, comparison.json and comparison.svg, a plot, into this folder.",
        ),
        click.option(
            "--for",
            "time_ns",
            metavar="DURATION",
            default="10s",
            show_default=True,
            callback=duration,
            help="How long speed is measured, all batch sizes and both models together.",
        ),
    ):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Give a command what says how a model is run when it is measured: --engine, --threads, --batch-sizes."""
    for option in (
        click.option(
            "--batch-sizes",
            metavar="N,...",
            callback=batch_sizes,
            help="Rows of one run; each of these is measured. For models that batch.  [default: 1,8,32]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 1024),
            help="Threads of one run; without it as many as predictd serve would take.",
        ),
        click.option(
            "--engine",
            metavar="NAME",
            help=f"What runs it: {', '.join(BUILT_IN)}, or package.module:function; without it the model's own engine.",
        ),
    ):
        command = option(command)
    return command
