"""`predictd bench`: how fast a server answers, or an engine by itself."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from predictd.server.bench.schedule import ARRIVALS
from predictd.server.bench.slo import Slo
from predictd.server.cli import bench_access
from predictd.server.cli import bench_values as values
from predictd.server.cli.bench_engine import bench_engine_only
from predictd.server.cli.bench_network import NetworkWish, bench_network, compare_files
from predictd.server.cli.parameters import duration, engine_options
from predictd.server.cli.remote import grpc_option

# What only one of the two ways to measure takes.
_OF_ENGINE = ("engine", "threads", "instances", "batch_sizes", "iterations", "profile")
_OF_NETWORK = (
    "target",
    "api",
    "stream",
    "callers",
    "rates",
    "arrivals",
    "slo",
    "connections",
    "processes",
    "rows",
    "deadline_ns",
    "http",
    "html",
    *bench_access.NAMES,
)


@click.command
@click.argument("models", metavar="MODEL...", nargs=-1)
@click.option(
    "--engine-only",
    is_flag=True,
    help="Measure the engine of a model's file or folder by itself, without a server.",
)
@grpc_option
@bench_access.access_options
@click.option(
    "--api",
    type=click.Choice(["predictd", "oip", "tfs"]),
    default="predictd",
    show_default=True,
    help="What the server speaks: predictd.v1, the Open Inference Protocol (Triton and others), TensorFlow Serving's.",
)
@click.option("--stream", is_flag=True, help="Send over one stream a connection instead of single calls.")
@click.option(
    "--concurrency",
    "callers",
    metavar="N,...",
    callback=values.numbers(whole=True),
    help="Closed loop: callers that wait for each answer; each number is measured.  [default: 1,4,16]",
)
@click.option(
    "--rate",
    "rates",
    metavar="N,...",
    callback=values.numbers(whole=False),
    help="Open loop: requests a second, whether or not those before were answered; each rate is measured.",
)
@click.option(
    "--arrivals",
    type=click.Choice(ARRIVALS),
    default=ARRIVALS[0],
    show_default=True,
    help="Of an open loop: random or equal gaps.",
)
@click.option(
    "--slo",
    metavar="p99=DURATION",
    callback=values.slo,
    help="Search the highest rate that keeps this limit, from --rate on if it is given; also p50, p90, p99.9, p99.99.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="Of all processes together; never more than callers.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="That put the load on the server.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 1 << 20),
    default=1,
    show_default=True,
    help="Of each random request to a model that batches.",
)
@click.option(
    "--deadline",
    "deadline_ns",
    metavar="DURATION",
    callback=duration,
    help="Of each request, sent to the server.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="The daemon's metrics, to see how it batches; https://HOST:PORT where they are encrypted.",
)
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
    callback=values.shapes,
    help="Of an input whose dimensions vary. N stands for the batch size; a number there is the only one. May be "
    "repeated.",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME:LOW:HIGH",
    callback=values.ranges,
    help="Of the numbers that are made up for an input; without it floats are from 0 to 1, integers 0 or 1. May be "
    "repeated.",
)
@click.option(
    "--inputs",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="An .npz file with an array for each input, an .npy file of the only input, or a folder of such; "
    "for several models a folder with one for each.",
)
@click.option(
    "--for",
    "time_ns",
    metavar="DURATION",
    callback=duration,
    help="How long each batch size or load is measured, ten runs or a hundred answers at least.  [default: 3s or 5s]",
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
    callback=duration,
    help="How long before that; a load up to five times as long, until it is steady.  [default: 500ms or 2s]",
)
@click.option("--profile", is_flag=True, help="Show what each layer takes, where the engine can tell.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write a page with plots, too.",
)
@click.option(
    "--compare",
    "compared",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    nargs=2,
    metavar="A.json B.json",
    help="Measure nothing: hold what --json printed against another.",
)
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    *,
    models: tuple[str, ...],
    engine_only: bool,
    target: str,
    tls: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    token_file: Path | None,
    api: str,
    stream: bool,
    callers: tuple[int, ...],
    rates: tuple[float, ...],
    arrivals: str,
    slo: Slo | None,
    connections: int,
    processes: int,
    rows: int,
    deadline_ns: int | None,
    http: str | None,
    engine: str | None,
    threads: int | None,
    instances: int | None,
    batch_sizes: tuple[int, ...] | None,
    shapes: dict[str, tuple[int, ...]],
    ranges: dict[str, tuple[float, float]],
    inputs: Path | None,
    time_ns: int | None,
    iterations: int | None,
    warm_up_ns: int | None,
    profile: bool,
    as_json: bool,
    html: Path | None,
    compared: tuple[Path, Path] | None,
) -> int:
    """Measure how fast a server answers, or with --engine-only how fast an engine is without one.

    MODEL is the name of a model that the server has; of several each is asked in turns. With --engine-only it is
    a model's file or folder, or FOLDER:VERSION, which is loaded as a worker of predictd serve would load it: with
    the same options, on the same CPUs, in the same environment.
    """
    if compared:
        _check_compares(ctx, measures=bool(models or engine_only))
        return compare_files(*compared)
    _check_measures(ctx, models, engine_only=engine_only)
    if inputs is not None and (shapes or ranges):
        raise click.UsageError("--inputs has shapes and numbers: leave --shape and --range out", ctx=ctx)
    if slo is not None and (callers or len(rates) > 1):
        raise click.UsageError("--slo takes at most one --rate, to begin with, and no --concurrency", ctx=ctx)
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    if engine_only:
        return bench_engine_only(
            models[0],
            engine=engine,
            threads=threads,
            instances=instances,
            batch_sizes=batch_sizes,
            shapes=shapes,
            ranges=ranges,
            inputs=inputs,
            time_ns=time_ns,
            iterations=iterations,
            warm_up_ns=warm_up_ns,
            profile=profile,
            as_json=as_json,
        )
    return bench_network(
        NetworkWish(
            target=target,
            api=api,
            streams=stream,
            models=tuple(dict.fromkeys(models)),
            callers=callers,
            rates=rates,
            arrivals=arrivals,
            slo=slo,
            connections=connections,
            processes=processes,
            rows=rows,
            deadline_ns=deadline_ns or 0,
            http=http or "",
            shapes=shapes,
            ranges=ranges,
            inputs=inputs,
            time_ns=time_ns,
            warm_up_ns=warm_up_ns,
            as_json=as_json,
            html=html,
            access=bench_access.access(
                tls=tls,
                tls_ca=tls_ca,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
                tls_server_name=tls_server_name,
                token_file=token_file,
            ),
        )
    )


def _check_compares(ctx: click.Context, *, measures: bool) -> None:
    if measures:
        raise click.UsageError("--compare measures nothing: leave MODEL and --engine-only out", ctx=ctx)
    others = {each.name or "" for each in ctx.command.params} - {"compared", "models"}
    _refuse(ctx, others, "is for measuring, which --compare does not")


def _check_measures(ctx: click.Context, models: Sequence[str], *, engine_only: bool) -> None:
    if engine_only:
        _refuse(ctx, _OF_NETWORK, "is for a server, not for --engine-only")
    else:
        _refuse(ctx, _OF_ENGINE, "needs --engine-only")
    if not models:
        raise click.UsageError("say what to measure: MODEL", ctx=ctx)
    if engine_only and len(models) > 1:
        raise click.UsageError("--engine-only measures one model at a time", ctx=ctx)


def _refuse(ctx: click.Context, names: Collection[str], reason: str) -> None:
    """No option is taken and ignored."""
    for parameter in ctx.command.params:
        if (
            parameter.name in names
            and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(f"{parameter.opts[0]} {reason}", ctx=ctx)
