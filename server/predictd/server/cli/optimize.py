"""`predictd optimize`: make a model smaller and faster, and show what it cost."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from
from predictd.server.config.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRECISIONS = {"int8": "INT8", "int8_dynamic": "INT8_DYNAMIC", "fp16": "FP16", "bf16": "BF16"}
# What predictd.server.optimize knows, which the help must not wait for.
METHODS = ("minmax", "entropy", "percentile")
TARGETS = ("onnxruntime", "tensorrt")


def _duration(_ctx: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        return parse_duration_ns(text) / 1e9
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _sizes(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(each) for each in text.split(",")}))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are no whole numbers separated by commas") from error
    if sizes[0] < 1:
        raise click.BadParameter("a batch has at least one row")
    return sizes


@click.command
@click.argument("model", metavar="MODEL.onnx", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE.onnx",
    type=click.Path(path_type=Path),
    help="Where to write the result. Nothing that is there already is overwritten.",
)
@click.option("--int8", is_flag=True, help="Quantize weights and activations; needs --calibration.")
@click.option("--int8-dynamic", is_flag=True, help="Quantize weights; activations anew in each run.")
@click.option("--fp16", is_flag=True, help="Convert to FP16; inputs and outputs stay as they are.")
@click.option("--bf16", is_flag=True, help="Matrix products and convolutions in BF16; for TensorRT.")
@click.option(
    "--prune",
    type=click.Choice(["2:4"]),
    help="Set the smaller two of each four weights to 0, for TensorRT's sparse kernels. Accuracy needs fine-tuning.",
)
@click.option(
    "--ahead-of-time",
    is_flag=True,
    help="Optimize the graph now and prepack its weights: loads faster, fits this kind of CPU only.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default=TARGETS[0],
    show_default=True,
    help="What shall run it. Each wants INT8 in another form.",
)
@click.option(
    "--calibration",
    metavar="FOLDER",
    type=click.Path(exists=True, path_type=Path),
    help="Real inputs for --int8: .npz files with an array for each input, or .npy files.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    show_default=True,
    help="How --int8 finds the range of a tensor from them.",
)
@click.option(
    "--inputs",
    metavar="FOLDER",
    type=click.Path(exists=True, path_type=Path),
    help="Real inputs to compare outputs on; without it those of --calibration, else random numbers.",
)
@click.option("--exclude", multiple=True, metavar="NODE", help="Leave this node as it is. May be repeated.")
@click.option(
    "--reduce-range/--no-reduce-range",
    default=None,
    help="Quantize weights to 7 bits, for x86 CPUs without VNNI.  [default: if this CPU is one]",
)
@click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Weights in a file beside the model.  [default: as the original, and beyond 2 GiB]",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(-1, 1),
    default=0.999,
    show_default=True,
    help="Of each output with the original's, at least; the result is not good enough below.",
)
@click.option("--max-error", type=click.FloatRange(0), help="Largest difference of any output, at most.")
@click.option("--keep", is_flag=True, help="Write a result that is not good enough, too.")
@click.option(
    "--batch-sizes", default="1,8", show_default=True, callback=_sizes, metavar="N,...", help="To measure."
)
@click.option(
    "--threads", type=click.IntRange(1), help="Of a run.  [default: what predictd serve would take]"
)
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    default="10s",
    show_default=True,
    callback=_duration,
    help="How long to measure.",
)
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="Where results of calibrations are kept; the default is that of predictd serve.",
)
def optimize(
    *,
    model: Path,
    output: Path,
    prune: str | None,
    ahead_of_time: bool,
    target: str,
    calibration: Path | None,
    method: str,
    inputs: Path | None,
    exclude: Sequence[str],
    reduce_range: bool | None,
    external_data: bool | None,
    min_cosine: float,
    max_error: float | None,
    keep: bool,
    batch_sizes: tuple[int, ...],
    threads: int | None,
    seconds: float,
    cache_dir: str | None,
    **precisions: bool,
) -> int:
    """Make a model smaller and faster, and show what was gained and what it cost.

    The result is compared with the original: size, time to load, latency and throughput, and how far the outputs
    differ. Exit status 1 says that it is not good enough; it is not written then, unless --keep is given. The
    tables are written beside the result (.report.md, .report.json, .report.svg).
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    precision = _precision(precisions)
    _check(precision, calibration, target, prune=bool(prune), ahead_of_time=ahead_of_time)
    settings = settings_from({"cache_dir": cache_dir})
    # Before it is imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise click.ClickException(f"{error} (pip install 'predictd[optimize]')") from error
    # Only now: the help must not wait for them.
    from predictd.server.measure.engine_process import MeasureError
    from predictd.server.optimize.calibration import Method
    from predictd.server.optimize.comparison import Thresholds
    from predictd.server.optimize.errors import OptimizeError
    from predictd.server.optimize.optimizing import optimize as run
    from predictd.server.optimize.target import Target
    from predictd.server.optimize.wish import Precision, Wish

    wish = Wish(
        model=model,
        output=output,
        precision=None if precision is None else Precision[_PRECISIONS[precision]],
        prune=prune is not None,
        ahead_of_time=ahead_of_time,
        target=Target(target),
        calibration=calibration,
        method=Method(method),
        inputs=inputs,
        exclude=frozenset(exclude),
        reduce_range=reduce_range,
        external_data=external_data,
        keep=keep,
        thresholds=Thresholds(min_cosine=min_cosine, max_abs_error=max_error),
        batch_sizes=batch_sizes,
        threads=threads,
        seconds=seconds,
    )
    try:
        return run(wish, settings, lambda line: click.echo(line, err=True), click.echo)
    except (OptimizeError, MeasureError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {str(error.strerror).lower()}") from error


def _precision(given: dict[str, bool]) -> str | None:
    chosen = [name for name, wanted in given.items() if wanted]
    if len(chosen) > 1:
        flags = " and ".join(_flag(name) for name in chosen)
        raise click.UsageError(f"{flags} contradict each other")
    return chosen[0] if chosen else None


def _check(
    precision: str | None, calibration: Path | None, target: str, *, prune: bool, ahead_of_time: bool
) -> None:
    """Raise UsageError for what cannot be meant."""
    if precision is None and not prune and not ahead_of_time:
        flags = ", ".join(_flag(name) for name in _PRECISIONS)
        raise click.UsageError(f"what shall be done? {flags}, --prune 2:4, --ahead-of-time")
    if precision == "int8" and calibration is None:
        raise click.UsageError("--int8 needs real inputs with --calibration; --int8-dynamic needs none")
    if precision != "int8" and calibration is not None:
        raise click.UsageError("--calibration is for --int8; to compare outputs on real inputs use --inputs")
    if target != "tensorrt" and precision == "bf16":
        raise click.UsageError("ONNX Runtime does not compute in BF16 on a CPU: --target tensorrt")
    if target != "onnxruntime" and (precision == "int8_dynamic" or ahead_of_time):
        flag = "--ahead-of-time" if ahead_of_time else _flag("int8_dynamic")
        raise click.UsageError(f"{flag} is for ONNX Runtime, not for --target {target}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
