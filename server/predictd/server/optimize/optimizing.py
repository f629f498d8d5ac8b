"""`predictd optimize`: make a model lighter, compare it with what it was, and keep it if it is good enough."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.engines.api import EngineOptions, ModelLoadError, Signature
from predictd.engines.cache import CacheFolder
from predictd.engines.onnxruntime import load
from predictd.server.config.cache_folder import cache_folder
from predictd.server.optimize.comparison import Comparison, Model, compare_models
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.inputs import Sample, read_inputs
from predictd.server.optimize.onnx_file import place, refuse_existing
from predictd.server.optimize.target import Target
from predictd.server.optimize.transforming import Transformation, Transformed

if TYPE_CHECKING:
    from predictd.server.config.settings import Settings
    from predictd.server.optimize.wish import Wish


@dataclasses.dataclass(frozen=True, slots=True)
class _Inputs:
    """What to calibrate with, and what to compare on; None makes it up."""

    calibration: Sequence[Sample]
    comparison: Sequence[Sample] | None
    notes: tuple[str, ...] = ()


def optimize(wish: Wish, settings: Settings, show: Callable[[str], None]) -> Comparison:
    """Carry out a wish. The result is at its place afterwards if it is good enough, or shall be kept in any case.

    Args:
        wish: What is wanted.
        settings: Of the daemon: the cache, and how models are run.
        show: Tells what is going on.

    Returns:
        The result against the original.

    Raises:
        OptimizeError: It cannot be done; one line.
        MeasureError: Inputs cannot be used, or the result cannot be measured; one line.
    """
    refuse_existing(wish.output)
    show(f"loading {wish.model}")
    signature = _signature(wish.model)
    inputs = _inputs(wish, signature)
    # Of the same file system, so that the result gets its name in one step; of a name that no repository looks at.
    with tempfile.TemporaryDirectory(prefix=f".{wish.output.name}.", dir=wish.output.parent) as folder:
        work = Path(folder)
        made = Transformation(wish, signature, inputs.calibration, _cache(settings), work, show).run()
        if _signature(made.for_cpu) != signature:
            raise OptimizeError(
                f"{wish.model}: what became of it takes or gives something else. This is a bug."
            )
        comparison = _compare(wish, made, inputs, settings, show)
        if comparison.verdict.good or wish.keep:
            place(made.path, wish.output)
    return comparison


def _signature(model: Path) -> Signature:
    try:
        engine = load(model, EngineOptions())
    except ModelLoadError as error:
        raise OptimizeError(str(error)) from error
    engine.close()
    return engine.signature


def _inputs(wish: Wish, signature: Signature) -> _Inputs:
    calibration = () if wish.calibration is None else read_inputs(wish.calibration, signature)
    if wish.inputs is not None:
        return _Inputs(calibration, read_inputs(wish.inputs, signature))
    if calibration:
        note = "outputs were compared on the inputs of the calibration: others, with --inputs, say more"
        return _Inputs(calibration, calibration, (note,))
    return _Inputs((), None)


def _cache(settings: Settings) -> CacheFolder | None:
    folder = cache_folder(settings, os.environ)
    return None if folder is None else CacheFolder(folder, settings.cache_limit_bytes)


def _compare(
    wish: Wish, made: Transformed, inputs: _Inputs, settings: Settings, show: Callable[[str], None]
) -> Comparison:
    by_tensorrt = wish.engine == Target.TENSORRT
    comparison = compare_models(
        Model(wish.model, wish.model.name),
        Model(made.path if by_tensorrt else made.for_cpu, wish.output.name),
        inputs.comparison,
        engine=wish.engine,
        batch_sizes=wish.batch_sizes,
        threads=wish.threads,
        seconds=wish.seconds,
        thresholds=wish.thresholds,
        settings=settings,
        show=show,
    )
    return dataclasses.replace(
        comparison,
        # Wherever it lay, and whatever stood for it, while it was measured.
        candidate=dataclasses.replace(
            comparison.candidate,
            model=Model(wish.output, wish.output.name),
            size_bytes=sum(each.stat().st_size for each in made.path.parent.iterdir()),
        ),
        notes=(
            *comparison.notes,
            *inputs.notes,
            *made.notes,
            *_of_the_place(wish, made, by_tensorrt=by_tensorrt),
        ),
    )


def _of_the_place(wish: Wish, made: Transformed, *, by_tensorrt: bool) -> tuple[str, ...]:
    """What measuring elsewhere than where the result shall run means."""
    if wish.target is not Target.TENSORRT or by_tensorrt:
        return ()
    if made.for_cpu != made.path:
        return ("BF16 was emulated on this CPU: outputs are those of BF16, load time and speed are not",)
    return ("measured on this CPU, not with TensorRT: its outputs will be similar, its speed is another",)
