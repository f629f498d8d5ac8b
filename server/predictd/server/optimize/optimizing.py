"""`predictd optimize`: make a model lighter, compare it with what it was, and keep it if it is good enough."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from predictd.engines.api import EngineOptions, ModelLoadError, Signature
from predictd.engines.cache import CacheFolder
from predictd.engines.onnxruntime import load
from predictd.server.config.cache_folder import cache_folder
from predictd.server.optimize import report
from predictd.server.optimize.comparison import Comparison, Model, compare_models
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.inputs import Sample, made_up_inputs, read_inputs
from predictd.server.optimize.onnx_file import place, refuse_existing
from predictd.server.optimize.target import Target
from predictd.server.optimize.transforming import Transformation, Transformed

if TYPE_CHECKING:
    from predictd.server.config.settings import Settings
    from predictd.server.optimize.wish import Wish

_ENGINE = "onnxruntime"
# Of made-up inputs, for a comparison.
_ROWS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class _Inputs:
    """What to calibrate with, and what to compare on."""

    calibration: Sequence[Sample]
    comparison: Sequence[Sample]
    notes: tuple[str, ...]


def optimize(wish: Wish, settings: Settings, say: Callable[[str], None], show: Callable[[str], None]) -> int:
    """Carry out a wish.

    Args:
        wish: What is wanted.
        settings: Of the daemon: the cache, and how models are run.
        say: Takes a line about what is being done.
        show: Takes the result, as text.

    Returns:
        The exit status: 0 if the result is good enough, else 1.

    Raises:
        OptimizeError: It cannot be done; one line.
        MeasureError: The result cannot be compared with the original; one line.
    """
    refuse_existing(wish.output)
    signature = _signature(wish.model)
    inputs = _inputs(wish, signature)
    with tempfile.TemporaryDirectory(prefix=f".{wish.output.name}.", dir=wish.output.parent) as folder:
        cache = _cache(settings)
        made = Transformation(wish, signature, inputs.calibration, cache, Path(folder), say).run()
        _check_signature(made.measured, signature)
        say("comparing with the original")
        comparison = _compare(wish, made, inputs, settings)
        keeps = comparison.verdict.good or wish.keep
        if keeps:
            place(made.path, wish.output)
    show(report.markdown(comparison))
    for written in _write_report(wish.output, comparison):
        say(f"written: {written}")
    say(_conclusion(wish, comparison))
    return 0 if comparison.verdict.good else 1


def _signature(model: Path) -> Signature:
    try:
        engine = load(model, EngineOptions())
    except ModelLoadError as error:
        raise OptimizeError(str(error)) from error
    engine.close()
    return engine.signature


def _check_signature(made: Path, signature: Signature) -> None:
    """What serves the original must be able to serve the result. BF16 no CPU loads: there it goes by the emulation."""
    if _signature(made) != signature:
        raise OptimizeError("the result takes or gives something else than the original. This is a bug.")


def _inputs(wish: Wish, signature: Signature) -> _Inputs:
    calibration = read_inputs(wish.calibration, signature) if wish.calibration else ()
    if wish.inputs is not None:
        return _Inputs(calibration, read_inputs(wish.inputs, signature), ())
    if calibration:
        note = "outputs were compared on the inputs of the calibration: others, with --inputs, say more"
        return _Inputs(calibration, calibration, (note,))
    note = (
        "outputs were compared on random numbers, which say little about real inputs: give some with --inputs"
    )
    return _Inputs((), made_up_inputs(wish.model, signature, _ROWS), (note,))


def _cache(settings: Settings) -> CacheFolder | None:
    folder = cache_folder(settings, os.environ)
    return None if folder is None else CacheFolder(folder, settings.cache_limit_bytes)


def _compare(wish: Wish, made: Transformed, inputs: _Inputs, settings: Settings) -> Comparison:
    comparison = compare_models(
        Model(wish.model, wish.model.name),
        Model(made.measured, wish.output.name),
        inputs.comparison,
        engine=_ENGINE,
        batch_sizes=wish.batch_sizes,
        threads=wish.threads,
        seconds=wish.seconds,
        thresholds=wish.thresholds,
        settings=settings,
    )
    elsewhere = (
        ("measured with ONNX Runtime on this CPU: outputs say something of TensorRT's, times do not",)
        if wish.target is Target.TENSORRT
        else ()
    )
    return dataclasses.replace(
        comparison,
        # Wherever it lay while it was measured.
        candidate=dataclasses.replace(
            comparison.candidate,
            model=Model(wish.output, wish.output.name),
            size_bytes=sum(each.stat().st_size for each in made.path.parent.iterdir()),
        ),
        notes=(*comparison.notes, *made.notes, *inputs.notes, *elsewhere),
    )


def _write_report(output: Path, comparison: Comparison) -> list[Path]:
    contents = {
        ".md": report.markdown(comparison),
        ".json": msgspec.json.format(msgspec.json.encode(report.data(comparison))).decode(),
        ".svg": report.picture(comparison),
    }
    written = []
    for suffix, text in contents.items():
        path = output.with_name(f"{output.stem}.report{suffix}")
        path.write_text(text)
        written.append(path)
    return written


def _conclusion(wish: Wish, comparison: Comparison) -> str:
    if comparison.verdict.good:
        return f"written: {wish.output}"
    reasons = "; ".join(comparison.verdict.reasons)
    if wish.keep:
        return f"written, though it is not good enough: {wish.output}: {reasons}"
    return f"not written, because it is not good enough: {wish.output}: {reasons} (--keep writes it all the same)"
