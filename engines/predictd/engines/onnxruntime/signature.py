"""From what ONNX Runtime says about a model to a `Signature`: dtypes, dimensions, and whether it batches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from predictd.engines.api import DType, ModelLoadError, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Node(Protocol):
    """An `onnxruntime.NodeArg`. A dimension is an int, a symbol's name, or None when nothing is known."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> Sequence[int | str | None]: ...


# Names that exporters make up for dimensions that nobody named: two of them may well be one. tf2onnx numbers them;
# PyTorch calls them after the node and the axis, such as `Addoutput_dim_0`.
_ANONYMOUS = re.compile(r"unk__\d+|.+_dim_\d+")

_DTYPES = {
    "tensor(bool)": DType.BOOL,
    "tensor(uint8)": DType.UINT8,
    "tensor(uint16)": DType.UINT16,
    "tensor(uint32)": DType.UINT32,
    "tensor(uint64)": DType.UINT64,
    "tensor(int8)": DType.INT8,
    "tensor(int16)": DType.INT16,
    "tensor(int32)": DType.INT32,
    "tensor(int64)": DType.INT64,
    "tensor(float16)": DType.FP16,
    "tensor(bfloat16)": DType.BF16,
    "tensor(float)": DType.FP32,
    "tensor(double)": DType.FP64,
    "tensor(string)": DType.BYTES,
}

# TensorProto.DataType of the ONNX standard.
ELEMENT_TYPES = {
    DType.FP32: 1,
    DType.UINT8: 2,
    DType.INT8: 3,
    DType.UINT16: 4,
    DType.INT16: 5,
    DType.INT32: 6,
    DType.INT64: 7,
    DType.BYTES: 8,
    DType.BOOL: 9,
    DType.FP16: 10,
    DType.FP64: 11,
    DType.UINT32: 12,
    DType.UINT64: 13,
    DType.BF16: 16,
}


def describe(inputs: Sequence[Node], overridable: Sequence[Node], outputs: Sequence[Node]) -> Signature:
    """The signature of a model.

    Inputs with a default (overridable initializers) are offered as optional inputs of a model that does not
    batch. Of one that does they are hidden: they have no row per request, so two requests that differ in them
    could not share a run.

    Raises:
        ModelLoadError: An input or output is of a type that is not served.
    """
    batches = _batches(inputs, outputs)
    optional = [node for node in overridable if node.type in _DTYPES and not batches]
    signature = Signature(
        inputs=(
            *(_spec("input", node) for node in inputs),
            *(_spec("input", node, optional=True) for node in optional),
        ),
        outputs=tuple(_spec("output", node) for node in outputs),
        batches=batches,
    )
    _refuse_text_with_bf16(signature)
    return signature


def _spec(role: str, node: Node, *, optional: bool = False) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise ModelLoadError(f"{role} {node.name!r} is of type {node.type}, which is not served")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, dtype, shape, optional)


def _batches(inputs: Sequence[Node], outputs: Sequence[Node]) -> bool:
    nodes = [*inputs, *outputs]
    if not inputs or not all(node.shape and not isinstance(node.shape[0], int) for node in nodes):
        return False
    rows_in = {node.shape[0] for node in inputs} - {None}
    rows_out = {node.shape[0] for node in outputs} - {None}
    named_in, named_out = _named(rows_in), _named(rows_out)
    if len(named_in) > 1 or not named_out <= named_in:
        return False
    # A batch by batch matrix, such as pairwise distances, mixes the rows of all requests.
    return not any(rows_in & set(node.shape[1:]) for node in nodes)


def _named(rows: set[int | str | None]) -> set[int | str | None]:
    return {name for name in rows if not (isinstance(name, str) and _ANONYMOUS.fullmatch(name))}


def _refuse_text_with_bf16(signature: Signature) -> None:
    # Text enters ONNX Runtime only through its `run`, whose outputs are NumPy arrays, which have no bfloat16.
    text = next((spec.name for spec in signature.inputs if spec.dtype is DType.BYTES), None)
    bf16 = next((spec.name for spec in signature.outputs if spec.dtype is DType.BF16), None)
    if text is not None and bf16 is not None:
        raise ModelLoadError(
            f"input {text!r} is a STRING and output {bf16!r} is BF16: the Python binding cannot pass both"
        )
