"""The request that the load consists of: one that was recorded, or one made up from the model's signature."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.client import BFloat16

if TYPE_CHECKING:
    import numpy.typing as npt

    from predictd.client import TensorSpec
    from predictd.client.tensors import TensorLike

# Every candidate gets the same.
_SEED = 0
_NUMPY = {
    "BOOL": "bool",
    "FP16": "float16",
    "BF16": "float32",
    "FP32": "float32",
    "FP64": "float64",
    **{
        f"{'U' * unsigned}INT{bits}": f"{'u' * unsigned}int{bits}"
        for unsigned in (0, 1)
        for bits in (8, 16, 32, 64)
    },
}


class RequestError(Exception):
    """There is no request to measure with. One line that says what to do."""


def recorded(path: Path, specs: Sequence[TensorSpec]) -> dict[str, TensorLike]:
    """The arrays of an .npz file, one an input.

    Raises:
        RequestError: It is no such file, or its names are not those of the inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs = dict(arrays)
    except OSError as error:
        raise RequestError(f"{path}: {str(error.strerror or error).lower()}") from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path}: not an .npz file of arrays") from error
    by_name = {spec.name: spec for spec in specs}
    unknown = min(inputs.keys() - by_name.keys(), default=None)
    if unknown is not None:
        raise RequestError(f"{path}: the model has no input {unknown!r}; it takes {', '.join(by_name)}")
    for spec in specs:
        if spec.name not in inputs and not spec.optional:
            raise RequestError(f"{path}: input {spec.name!r} is missing")
    return {
        name: _as_bf16(array) if by_name[name].dtype == "BF16" else array for name, array in inputs.items()
    }


def made_up(specs: Sequence[TensorSpec], *, batches: bool) -> dict[str, TensorLike]:
    """Random numbers from 0 to 1, integers 0 or 1, empty text: one row of a model that batches.

    Raises:
        RequestError: The signature does not tell how large an input is.
    """
    return {spec.name: _made_up(spec, batches=batches) for spec in specs if not spec.optional}


def _made_up(spec: TensorSpec, *, batches: bool) -> TensorLike:
    shape = (1, *spec.shape[1:]) if batches else spec.shape
    if any(size < 0 for size in shape):
        raise RequestError(
            f"input {spec.name!r} has dimensions that vary ({list(spec.shape)}): give a real request with --input"
        )
    if spec.dtype == "BYTES":
        return np.full(shape, b"", object)
    if spec.dtype not in _NUMPY:
        raise RequestError(f"input {spec.name!r} is {spec.dtype}: give a real request with --input")
    random = np.random.default_rng(_SEED)
    dtype = np.dtype(_NUMPY[spec.dtype])
    if dtype.kind != "f":
        return random.integers(0, 2, shape).astype(dtype)
    array = random.random(shape, np.float32).astype(dtype)
    return BFloat16.from_float32(array) if spec.dtype == "BF16" else array


def _as_bf16(array: npt.NDArray[Any]) -> TensorLike:
    # NumPy's files have no bfloat16: it was written as its bits, or comes back as two bytes of unknown type.
    return BFloat16(array.view(np.uint16)) if array.dtype in (np.dtype(np.uint16), np.dtype("V2")) else array
