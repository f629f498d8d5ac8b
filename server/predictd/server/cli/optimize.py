"""`predictd optimize`: make a model smaller and faster, and show what it cost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from
from predictd.server.cli.parameters import comparison_options, engine_options, threshold_options

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_NOT_GOOD = 1

_PRECISIONS = ("int8", "int8_dynamic", "fp16", "bf16")
# What predictd.server.optimize knows, which the help must not wait for.
METHODS = ("percentile", "minmax", "entropy")
TARGETS = ("onnxruntime", "tensorrt")


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
    help=f"How --int8 finds the range of a tensor from them.  [default: {METHODS[0]}]",
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
@threshold_options
@click.option("--keep", is_flag=True, help="Write a result that does not keep these, too.")
@engine_options
@comparison_options
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
    method: str | None,
    inputs: Path | None,
    exclude: Sequence[str],
    reduce_range: bool | None,
    external_data: bool | None,
    min_cosine: float,
    max_error: float | None,
    min_top1: float | None,
    min_speedup: float | None,
    keep: bool,
    engine: str | None,
    batch_sizes: tuple[int, ...] | None,
    threads: int | None,
    time_ns: int,
    report: Path | None,
    as_json: bool,
    cache_dir: str | None,
    **precisions: bool,
) -> int:
    """Make MODEL.onnx smaller and faster, and show what was gained and what it cost.

    The result is held against the original: size, load time, speed, and how far its outputs differ. The exit status
    is 0 if it keeps the thresholds, else 1, and then it is not written, unless --keep says so.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    precision = _precision(precisions)
    _check(
        precision,
        target,
        calibration=calibration is not None,
        method=method is not None,
        prune=prune is not None,
        ahead_of_time=ahead_of_time,
        exclude=bool(exclude),
        reduce_range=reduce_range is not None,
        external_data=external_data is not None,
    )
    settings = settings_from({"cache_dir": cache_dir})
    # Before ONNX Runtime is imported, which would report its use.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # Only now: the help must not wait for them.
    try:
        from predictd.server.optimize.optimizing import optimize as run
    except ImportError as error:
        raise click.ClickException(f"{error} (pip install 'predictd[optimize]')") from error
    from predictd.server.measure.engine_process import MeasureError
    from predictd.server.measure.progress import ProgressLine
    from predictd.server.optimize.calibration import Method
    from predictd.server.optimize.comparison import Thresholds
    from predictd.server.optimize.errors import OptimizeError
    from predictd.server.optimize.report import data, text, write_report
    from predictd.server.optimize.target import Target
    from predictd.server.optimize.wish import Precision, Wish

    wish = Wish(
        model=model,
        output=output,
        precision=None if precision is None else Precision[precision.upper()],
        prune=prune is not None,
        ahead_of_time=ahead_of_time,
        target=Target(target),
        calibration=calibration,
        method=Method(method or METHODS[0]),
        inputs=inputs,
        exclude=frozenset(exclude),
        reduce_range=reduce_range,
        external_data=external_data,
        keep=keep,
        thresholds=Thresholds(min_cosine, max_error, min_top1, min_speedup),
        engine=engine,
        batch_sizes=batch_sizes,
        threads=threads,
        seconds=time_ns / 1e9,
    )
    line = ProgressLine(sys.stderr)
    try:
        comparison = run(wish, settings, line.show)
        if report is not None:
            write_report(report, f"{model.name} and {output.name}", comparison)
    except (OptimizeError, MeasureError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {str(error.strerror).lower()}") from error
    finally:
        line.clear()
    click.echo(json.dumps(data(comparison), indent=2) if as_json else "\n\n".join(text(comparison)))
    click.echo(_conclusion(output, good=comparison.verdict.good, keep=keep), err=True)
    return 0 if comparison.verdict.good else EXIT_NOT_GOOD


def _conclusion(output: Path, *, good: bool, keep: bool) -> str:
    if good:
        return f"written: {output}"
    if keep:
        return f"written, though it is not good enough: {output}"
    return f"not written, because it is not good enough: {output} (--keep writes it all the same)"


def _precision(given: dict[str, bool]) -> str | None:
    chosen = [name for name in _PRECISIONS if given[name]]
    if len(chosen) > 1:
        flags = " and ".join(_flag(name) for name in chosen)
        raise click.UsageError(f"{flags} contradict each other")
    return chosen[0] if chosen else None


def _check(
    precision: str | None,
    target: str,
    *,
    calibration: bool,
    method: bool,
    prune: bool,
    ahead_of_time: bool,
    exclude: bool,
    reduce_range: bool,
    external_data: bool,
) -> None:
    """Raise UsageError for what cannot be made, and for an option that would mean nothing."""
    everything = ", ".join((*map(_flag, _PRECISIONS), "--prune 2:4", "--ahead-of-time"))
    static, quantized = precision == "int8", precision in ("int8", "int8_dynamic")
    elsewhere = f"is for ONNX Runtime, not for --target {target}"
    for wrong, why in (
        (not (precision or prune or ahead_of_time), f"what shall be done? {everything}"),
        (
            static and not calibration,
            "--int8 needs real inputs with --calibration; --int8-dynamic needs none",
        ),
        (
            calibration and not static,
            "--calibration is for --int8; to compare outputs on real inputs use --inputs",
        ),
        (method and not static, "--method is for --int8"),
        (
            precision == "bf16" and target == "onnxruntime",
            "ONNX Runtime does not compute in BF16 on a CPU: --target tensorrt",
        ),
        (precision == "int8_dynamic" and target != "onnxruntime", f"--int8-dynamic {elsewhere}"),
        (ahead_of_time and target != "onnxruntime", f"--ahead-of-time {elsewhere}"),
        (reduce_range and target != "onnxruntime", f"--reduce-range {elsewhere}"),
        (reduce_range and not quantized, "--reduce-range is for --int8 and --int8-dynamic"),
        (exclude and not (precision or prune), "--exclude is for a precision and for --prune"),
        (ahead_of_time and external_data, "--ahead-of-time puts weights into a file of their own by itself"),
    ):
        if wrong:
            raise click.UsageError(why)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
