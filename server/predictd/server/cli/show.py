"""How models, tensors and predictions are shown: text for people, plain data for JSON. No I/O."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.client import BFloat16

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from predictd.client import Model, ModelVersion, Prediction, TensorSpec

_HEAD = ("NAME", "VERSION", "STATE", "ENGINE", "BATCH", "INPUTS → OUTPUTS")
# Of larger outputs only the edges are printed.
_MOST_VALUES = 60
_WIDTH = 100
# Where settings come from that nobody has set.
_OWN_CHOICE = ("default", "plan")


def models_text(models: Sequence[Model]) -> str:
    """A table with a line for each version of each model, and below it what was set, and where."""
    if not models:
        return "The daemon serves no models."
    rows = [_HEAD, *(_row(model, version) for model in models for version in model.versions)]
    return "\n".join((table(rows), *(line for model in models for line in _settings(model))))


def models_data(models: Sequence[Model]) -> list[dict[str, Any]]:
    """The models as JSON has them."""
    return [
        {
            "name": model.name,
            "default_version": model.default_version,
            "labels": [
                {
                    "name": label.name,
                    "version": label.version,
                    "set_by": label.set_by,
                    "next_version": label.next_version,
                }
                for label in model.labels
            ],
            "split": model.split
            and {
                "shares": [
                    {"version": version, "percent": percent}
                    for version, percent in model.split.shares.items()
                ],
                "set_by": model.split.set_by,
            },
            "settings": [
                {"name": one.name, "value": one.value, "origin": one.origin} for one in model.settings
            ],
            "versions": [
                {
                    "version": version.version,
                    "state": version.state,
                    "reason": version.reason,
                    "engine": version.engine,
                    "max_batch_size": version.max_batch_size,
                    "labels": list(version.labels),
                    "tuned": version.tuned,
                    "inputs": [_spec_data(spec) for spec in version.inputs],
                    "outputs": [_spec_data(spec) for spec in version.outputs],
                }
                for version in model.versions
            ],
        }
        for model in models
    ]


def prediction_text(prediction: Prediction) -> str:
    """An answer for people: where it came from, then each output with its values, abbreviated."""
    timing = prediction.timing
    rows = f", in a batch of {timing.batch_rows}" if timing.batch_rows else ""
    lines = [
        (
            f"{prediction.model} version {prediction.version}: "
            f"queue {duration(timing.queue_seconds)}, compute {duration(timing.compute_seconds)}{rows}"
        )
    ]
    for name, array in prediction.outputs.items():
        dtype = prediction.dtypes[name]
        lines += (f"{name} {dtype} {list(array.shape)}", _values_text(dtype, array))
    return "\n".join(lines)


def prediction_data(prediction: Prediction) -> dict[str, Any]:
    """An answer as JSON has it, nothing left out."""
    timing = prediction.timing
    return {
        "model": prediction.model,
        "version": prediction.version,
        "outputs": [
            {
                "name": name,
                "dtype": prediction.dtypes[name],
                "shape": list(array.shape),
                **_values_data(prediction.dtypes[name], array),
            }
            for name, array in prediction.outputs.items()
        ],
        "timing": {
            "queue_seconds": timing.queue_seconds,
            "compute_seconds": timing.compute_seconds,
            "batch_rows": timing.batch_rows,
        },
    }


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def spec_text(spec: TensorSpec) -> str:
    """A tensor as `name DTYPE [shape]`, with `?` for a dimension that may vary."""
    shape = ", ".join("?" if dimension < 0 else str(dimension) for dimension in spec.shape)
    return f"{spec.name} {spec.dtype} [{shape}]" + (" optional" if spec.optional else "")


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, scale in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _settings(model: Model) -> Iterator[str]:
    for version in model.versions:
        if version.tuned:
            yield f"{model.name}: version {version.version} has {version.tuned}"
        if version.reason and version.state == "READY":
            yield f"{model.name}: version {version.version}: {version.reason}"
    said = [one for one in model.settings if one.origin not in _OWN_CHOICE]
    if said:
        yield f"{model.name}: " + ", ".join(f"{one.name} {one.value} ({one.origin})" for one in said)
    there = {version.version for version in model.versions}
    for label in model.labels:
        waits = f", and is {label.next_version} once that is ready" if label.next_version else ""
        gone = "" if label.version in there else ", which is not there"
        yield f"{model.name}: label {label.name} is version {label.version}{gone}{waits} ({_by(label.set_by)})"
    if model.split is not None:
        shares = " ".join(f"{version}={percent}%" for version, percent in model.split.shares.items())
        yield f"{model.name}: split {shares} ({_by(model.split.set_by)})"


def _by(set_by: str) -> str:
    return f"set by: {set_by.replace('_', ' ').lower()}"


def _row(model: Model, version: ModelVersion) -> tuple[str, ...]:
    signature = " → ".join(", ".join(map(spec_text, specs)) for specs in (version.inputs, version.outputs))
    return (
        model.name,
        " ".join((str(version.version), *(f"({label})" for label in version.labels))),
        version.state,
        version.engine or "-",
        str(version.max_batch_size or "-"),
        signature if version.outputs and version.state == "READY" else version.reason or "-",
    )


def _spec_data(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "optional": spec.optional}


def _values_text(dtype: str, array: npt.NDArray[Any]) -> str:
    if dtype == "BF16":
        array = BFloat16(array).to_float32()
    text = np.array2string(array, threshold=_MOST_VALUES, edgeitems=3, max_line_width=_WIDTH, separator=", ")
    return "\n".join(f"  {line}" for line in text.splitlines())


def _values_data(dtype: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    if dtype == "BYTES":
        return _strings_data(array)
    if dtype == "BF16":
        array = BFloat16(array).to_float32()
    values = array.tolist()
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    return {"data": values if finite else _quoted(values)}


def _quoted(values: Any) -> Any:
    """Replace what JSON has no number for by a string, as protobuf's JSON does."""
    if isinstance(values, list):
        return [_quoted(each) for each in values]
    if math.isfinite(values):
        return values
    return "NaN" if math.isnan(values) else "Infinity" if values > 0 else "-Infinity"


def _strings_data(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Strings as text if all of them are, else all in base64: a reader must not have to guess for each."""
    try:
        return {"encoding": "utf-8", "data": _nested(array, (each.decode() for each in array.flat))}
    except UnicodeDecodeError:
        encoded = (base64.b64encode(each).decode() for each in array.flat)
        return {"encoding": "base64", "data": _nested(array, encoded)}


def _nested(array: npt.NDArray[Any], elements: Iterator[str]) -> Any:
    nested = np.empty(array.size, dtype=object)
    nested[:] = list(elements)
    return nested.reshape(array.shape).tolist()
