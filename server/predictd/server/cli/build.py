"""`predictd build`: a TensorRT plan from an ONNX model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from
from predictd.server.config.units import parse_size_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.engines.tensorrt.build_options import BuildOptions
    from predictd.server.cli.build_model import ModelToBuild
    from predictd.server.config.settings import Settings

# Those of predictd.engines.tensorrt.build_options, which imports NumPy; a test compares them.
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")
BINDINGS = ("tensorrt", "tensorrt_rtx")


def _size(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size_bytes = parse_size_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if size_bytes < 1:
        raise click.BadParameter("it must be more than 0")
    return size_bytes


@click.command(
    epilog="Without an option the model's own file holds (its max_batch_size, preferred_batch_sizes and the parameters "
    "of its engine), then the settings of predictd serve."
)
@click.argument("model", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.plan",
    help="Where to write the plan; what it was built with goes beside it, into FILE.plan.json.",
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="What layers may compute in.  [default: fp32]"
)
@click.option("--min", "minimum", multiple=True, metavar="NAME:1x3x224x224,...", help="The least shapes.")
@click.option(
    "--opt", "optimum", multiple=True, metavar="NAME:SHAPE,...", help="The shapes to be fastest at."
)
@click.option(
    "--max",
    "maximum",
    multiple=True,
    metavar="NAME:SHAPE,...",
    help="The largest shapes. Of an input that is named, give all three, or one if its shape shall not vary.",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="ROWS",
    help="For inputs that are not named: have a profile that is best at this size. May be repeated; the largest is the "
    "most that the plan takes.",
)
@click.option(
    "--workspace",
    "workspace_bytes",
    callback=_size,
    metavar="SIZE",
    help="GPU memory for temporary results at most.",
)
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep in this file, instead of the cache, how fast kernels were, for the next build.",
)
@click.option("--version-compatible", is_flag=True, help="Later versions of TensorRT shall run it, too.")
@click.option(
    "--hardware-compatibility", type=click.Choice(COMPATIBILITIES), help="Which other GPUs shall run it, too."
)
@click.option("--sparse", is_flag=True, help="Use the sparsity of weights that are sparse 2:4.")
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="X.Y",
    help="TensorRT-RTX: build for this GPU, which need not be here. May be repeated; without it, for all.",
)
@click.option("--bindings", type=click.Choice(BINDINGS), help="Of which TensorRT.  [default: what is there]")
@click.option(
    "--device", type=click.IntRange(min=0), default=0, show_default=True, help="The GPU to build on."
)
@click.option(
    "--cache-dir", metavar="DIR", help="Keep the plan here, too; the default is that of predictd serve."
)
def build(
    *,
    model: Path,
    output: Path,
    minimum: Sequence[str],
    optimum: Sequence[str],
    maximum: Sequence[str],
    timing_cache: Path | None,
    device: int,
    cache_dir: str | None,
    **said: object,
) -> int:
    """Build a TensorRT plan of the ONNX file MODEL, or of the newest version in the model folder MODEL.

    TensorRT builds for the GPU at hand, TensorRT-RTX without one. A plan that was built before comes from the cache.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    settings = settings_from({"cache_dir": cache_dir})
    # Only now: the help must not wait for NumPy.
    from predictd.engines.api import EngineError
    from predictd.engines.tensorrt.profiles import parse_shapes
    from predictd.server.cli.build_model import check_output, model_to_build, with_shapes

    check_output(output)
    subject = model_to_build(model, settings)
    try:
        shapes = [parse_shapes(texts) for texts in (minimum, optimum, maximum)]
    except ValueError as error:
        raise click.UsageError(
            f"--min, --opt and --max take {error}", ctx=click.get_current_context()
        ) from error
    try:
        options = with_shapes(subject.options(said), shapes)
        _build(subject, options, settings, output, timing_cache, device)
    except EngineError as error:
        raise click.ClickException(f"{subject.path}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{output}: {str(error.strerror).lower()}") from error
    return 0


def _build(
    subject: ModelToBuild,
    options: BuildOptions,
    settings: Settings,
    output: Path,
    timing_cache: Path | None,
    device: int,
) -> None:
    from predictd.engines.cache import CacheFolder
    from predictd.engines.tensorrt.bindings import load_bindings
    from predictd.engines.tensorrt.plan_cache import copy_plan, plan_for, plan_wish
    from predictd.server.cli.build_progress import ProgressLine
    from predictd.server.config.cache_folder import cache_folder

    bindings = load_bindings(options.flavour)
    wish = plan_wish(subject.path, options, subject.declared, bindings, device, timing_cache)
    folder = cache_folder(settings, os.environ)
    cache = None if folder is None else CacheFolder(folder, settings.cache_limit_bytes)
    with ProgressLine() as line, plan_for(wish, bindings, cache, line.show) as plan:
        facts = copy_plan(plan, output)
    size = f"{output.stat().st_size / 2**20:.1f} MiB"
    click.echo(
        f"{output}: {size}, built by {bindings.label} in {facts.build_seconds:.1f} s, {facts.summary()}"
    )
