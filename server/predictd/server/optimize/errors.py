"""What goes wrong with a user's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx

from predictd.engines.onnxruntime.session import ORT_ERRORS

# What ONNX and ONNX Runtime's tools raise for a model that they cannot handle: nothing in common, and no promise.
_LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    *ORT_ERRORS,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
    AssertionError,
    KeyError,
    TypeError,
    ValueError,
)


class OptimizeError(Exception):
    """It cannot be done. One line that names the file and says what to do."""


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Make an OptimizeError of what a library raises.

    Args:
        what: Begins the line, such as "calibration failed".
    """
    try:
        yield
    except _LIBRARY_ERRORS as error:
        raise OptimizeError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}") from error
