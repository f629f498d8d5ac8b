"""Calibration: which values the tensors of a model take on real inputs. The result is a table of ranges."""

from __future__ import annotations

import contextlib
import enum
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator, save_tensors_data

from predictd.server.optimize.errors import refused
from predictd.server.optimize.inputs import Sample
from predictd.server.optimize.onnx_file import needs_external_data


class Method(enum.StrEnum):
    """How a range is found. ONNX Runtime's fourth one, Distribution, is for FP8, and ruins INT8."""

    MINMAX = "minmax"
    """From the least to the greatest value."""

    ENTROPY = "entropy"
    """That which loses the least information."""

    PERCENTILE = "percentile"
    """Without the rarest values."""

    @property
    def method(self) -> Any:
        """What ONNX Runtime calls it."""
        return _METHODS[self]


_METHODS = {
    Method.MINMAX: CalibrationMethod.MinMax,
    Method.ENTROPY: CalibrationMethod.Entropy,
    Method.PERCENTILE: CalibrationMethod.Percentile,
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to calibrate with.

    Attributes:
        samples: At least one.
        method: How ranges are found.
    """

    samples: Sequence[Sample]
    method: Method


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands over one batch."""

    def __init__(self, batch: Sample) -> None:
        self._batches = iter((dict(batch),))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def calibrate(
    model: Path, batches: Iterable[Sample], method: Method, operators: Sequence[str], table: Path
) -> None:
    """Run a prepared model and write the table of ranges.

    Args:
        model: The prepared model.
        batches: What to run it on.
        method: How ranges are found.
        operators: Whose tensors are wanted.
        table: The file to write.

    Raises:
        OptimizeError: The model fails on a batch.
    """
    # It prints what it does.
    with refused("calibration failed"), contextlib.redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            str(model),
            list(operators),
            augmented_model_path=str(model.with_name("augmented.onnx")),
            calibrate_method=method.method,
            use_external_data_format=needs_external_data(model),
            # Else percentiles are taken of magnitudes, and half the numbers are lost where a tensor has one sign.
            extra_options={"symmetric": False},
        )
        for batch in batches:
            # One at a time: it holds the tensors of all batches of a call in memory.
            calibrator.collect_data(_Reader(batch))
        save_tensors_data(calibrator.compute_data(), table)
