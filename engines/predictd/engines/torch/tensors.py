"""Arrays as tensors and tensors as arrays, without a copy.

Neither way goes through PyTorch's own NumPy bridge: it knows no bfloat16, warns about read-only memory, and does
not work at all where PyTorch was built for NumPy 1 and runs beside NumPy 2.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import warnings
from typing import Any

import numpy as np
import torch

from predictd.engines.api import Array, DType, EngineError, TensorSpec

# A PyTorch that was built for NumPy 1 tells in pages, at its first chance, that its bridge to NumPy 2 does not work.
with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")
    CPU = torch.device("cpu")

TORCH_DTYPES: dict[DType, Any] = {
    DType.BOOL: torch.bool,
    DType.UINT8: torch.uint8,
    DType.INT8: torch.int8,
    DType.INT16: torch.int16,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.FP16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.FP32: torch.float32,
    DType.FP64: torch.float64,
}
DTYPES: dict[Any, DType] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
# DLPack has no bfloat16, and bool only since version 1: their bits travel.
_AS_BITS = {DType.BOOL: torch.uint8, DType.BF16: torch.int16}


def as_tensor(array: Array, dtype: DType) -> Any:
    """A tensor on the memory of an array, which must outlive it.

    It lets its reader write, whatever the array says: PyTorch has no read-only tensors.
    """
    if array.size == 0:
        return torch.empty(array.shape, dtype=TORCH_DTYPES[dtype])
    address, _ = array.__array_interface__["data"]
    memory = (ctypes.c_byte * array.nbytes).from_address(address)
    return torch.frombuffer(memory, dtype=TORCH_DTYPES[dtype]).reshape(array.shape)


def as_array(tensor: Any, spec: TensorSpec) -> Array:
    """An array on the memory of a tensor, which lives as long as the array does.

    Raises:
        EngineError: The tensor is not what the signature says.
    """
    if not isinstance(tensor, torch.Tensor):
        raise EngineError(f"output {spec.name!r} is of type {type(tensor).__name__}, not a tensor")
    if tensor.dtype != TORCH_DTYPES[spec.dtype]:
        given = str(tensor.dtype).removeprefix("torch.")
        raise EngineError(f"output {spec.name!r} is {given}, the model's signature says {spec.dtype.name}")
    if tensor.layout is not torch.strided:
        raise EngineError(f"output {spec.name!r} is {str(tensor.layout).removeprefix('torch.')}, not dense")
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape) or any(
        promised not in (-1, size) for size, promised in zip(shape, spec.shape, strict=True)
    ):
        raise EngineError(
            f"output {spec.name!r} has shape {list(shape)}, the model's signature says {list(spec.shape)}"
        )
    dense = tensor.detach().contiguous()
    bits = _AS_BITS.get(spec.dtype)
    array: Array = np.from_dlpack(dense if bits is None else dense.view(bits))
    return array if bits is None else array.view(spec.dtype.numpy)


def unaliased(tensor: Any, inputs: list[Any]) -> Any:
    """The tensor, or a copy where its memory is that of an input, which is the caller's."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return tensor
    address = tensor.data_ptr()
    for given in inputs:
        if given is not None and 0 <= address - given.data_ptr() < given.numel() * given.element_size():
            return tensor.clone()
    return tensor
