"""What the user wants of a model."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from predictd.server.optimize.calibration import Method
from predictd.server.optimize.comparison import Thresholds
from predictd.server.optimize.target import Target


class Precision(enum.StrEnum):
    """What a model shall compute in."""

    INT8 = "INT8"
    INT8_DYNAMIC = "INT8, dynamic"
    FP16 = "FP16"
    BF16 = "BF16"


@dataclass(frozen=True, slots=True)
class Wish:
    """One call of the command.

    Attributes:
        model: An ONNX file.
        output: Where the result shall be; nothing is there yet.
        precision: None leaves it as it is.
        prune: To 2:4.
        ahead_of_time: Optimize the graph and prepack the weights.
        target: Where the result shall run.
        calibration: Inputs to calibrate with.
        method: How ranges are found from them.
        inputs: To compare outputs on; None takes those of the calibration, else made-up ones.
        exclude: Nodes that stay as they are, by name.
        reduce_range: Quantize weights to 7 bits; None does where this CPU needs it.
        external_data: Weights in a file of their own; None does as the original.
        keep: Write a result that is not good enough, too.
        thresholds: What is good enough.
        engine: That measures; None takes the model's own.
        batch_sizes: To measure; None takes the usual ones.
        threads: Of a run; None takes what the launcher would.
        seconds: To measure for.
    """

    model: Path
    output: Path
    precision: Precision | None
    prune: bool
    ahead_of_time: bool
    target: Target
    calibration: Path | None
    method: Method
    inputs: Path | None
    exclude: frozenset[str]
    reduce_range: bool | None
    external_data: bool | None
    keep: bool
    thresholds: Thresholds
    engine: str | None
    batch_sizes: tuple[int, ...] | None
    threads: int | None
    seconds: float
