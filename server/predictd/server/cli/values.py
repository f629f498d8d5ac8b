"""Arrays from the command line: `@file.npy`, `@file.npz:key`, and inline JSON in the model's own dtype."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from predictd.client import BFloat16

if TYPE_CHECKING:
    import numpy.typing as npt

    from predictd.client import TensorSpec
    from predictd.client.tensors import TensorLike

_NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "float32",
    "FP32": "float32",
    "FP64": "float64",
}


class InputError(ValueError):
    """The text of an input gives no array. The message is one line that names the input."""


def read_value(spec: TensorSpec, text: str) -> TensorLike:
    """Return the array that the text of an input stands for.

    Args:
        spec: The input, as the model declares it.
        text: `@` and a file, which is sent as it is, or JSON, which becomes what the model takes.

    Raises:
        InputError: There is no such file, or the values are not of the input's dtype.
    """
    try:
        return _from_file(spec, text[1:]) if text.startswith("@") else _from_json(spec, text)
    except OSError as error:
        raise InputError(f"input {spec.name!r}: {text[1:]}: {error.strerror}") from error
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"input {spec.name!r}: {error}") from error


def _from_file(spec: TensorSpec, place: str) -> TensorLike:
    path, key = place, None
    if ".npz:" in place:
        path, _, key = place.rpartition(":")
    # NumPy opens the file itself too, and leaves it open where the content is no array.
    with Path(path).open("rb") as stream:
        try:
            array = _load(stream, key)
        except KeyError as error:
            raise ValueError(f"write @{path}:NAME, where NAME is one of {error.args[0]}") from error
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npy or .npz file of numbers or strings") from error
    return _as_bf16(array) if spec.dtype == "BF16" else array


def _load(stream: BinaryIO, key: str | None) -> npt.NDArray[Any]:
    """Return the array of a file. Raises KeyError with the names of an archive that has none of this one."""
    loaded = np.load(stream, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asarray(loaded)
    if key is None or key not in loaded.files:
        raise KeyError(", ".join(loaded.files))
    return np.asarray(loaded[key])


def _as_bf16(array: npt.NDArray[Any]) -> TensorLike:
    # NumPy's files have no bfloat16: it was written as its bits, or comes back as two bytes of unknown type.
    if array.dtype == np.uint16 or array.dtype == np.dtype("V2"):
        return BFloat16(array.view(np.uint16))
    return array


def _from_json(spec: TensorSpec, text: str) -> TensorLike:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither JSON nor @FILE ({error})") from error
    if spec.dtype == "BYTES":
        return _strings(values)
    name = _NUMPY_NAMES.get(spec.dtype)
    if name is None:
        raise ValueError(f"this predictd does not know the dtype {spec.dtype}")
    array = _numbers(np.asarray(values), np.dtype(name), spec.dtype)
    return BFloat16.from_float32(array) if spec.dtype == "BF16" else array


def _numbers(given: npt.NDArray[Any], wanted: np.dtype[Any], dtype: str) -> npt.NDArray[Any]:
    """Convert without changing a value beyond the rounding of floating-point numbers."""
    if given.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if given.size and (given.min() < limits.min or given.max() > limits.max):
            raise ValueError(f"{dtype} holds {limits.min} to {limits.max}")
    elif given.size and not np.can_cast(given.dtype, wanted, "same_kind"):
        raise ValueError(f"the model takes {dtype}, which these values are not")
    with np.errstate(over="raise"):
        return given.astype(wanted)


def _strings(values: object) -> npt.NDArray[Any]:
    array = np.array(values, dtype=object)
    if not all(isinstance(element, str) for element in array.flat):
        raise ValueError("the model takes strings, which these values are not")
    return array
