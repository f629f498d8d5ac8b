"""FP16: half the size. Inputs and outputs stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from predictd.server.optimize.errors import OptimizeError, refused

_MAX = float(np.finfo(np.float16).max)


def to_fp16(source: Path, exclude: frozenset[str]) -> ModelProto:
    """A model in FP16. Weights that FP16 does not reach become its largest number.

    Args:
        source: Shapes are inferred from it.
        exclude: Nodes that stay in FP32.

    Raises:
        OptimizeError: It cannot be converted, or has no FP32 weights.
    """
    with refused("cannot be converted to FP16"):
        model: ModelProto = convert_float_to_float16(
            str(source),
            keep_io_types=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=sorted(exclude),
        )
    if not any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer):
        raise OptimizeError("nothing in the model can be converted to FP16")
    return model


def beyond_fp16(model: ModelProto) -> tuple[str, ...]:
    """The weights with values that are too large for FP16."""
    return tuple(
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and np.max(np.abs(numpy_helper.to_array(tensor)), initial=0.0) > _MAX
    )
