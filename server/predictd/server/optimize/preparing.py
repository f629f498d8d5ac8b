"""What quantization needs first: a graph that is simplified and knows its shapes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from predictd.server.optimize.errors import OptimizeError, refused
from predictd.server.optimize.onnx_file import DATA_SUFFIX, has_external_data, needs_external_data

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def prepare(source: Path, target: Path) -> None:
    """Write what a model becomes before it is quantized.

    Raises:
        OptimizeError: It cannot be prepared, or it is quantized already.
    """
    with refused(f"{source}: cannot be prepared"):
        quant_pre_process(
            str(source),
            str(target),
            # It would need SymPy, and the shapes that it finds beyond the others are not needed.
            skip_symbolic_shape=True,
            # Written elsewhere, the graph would look for the original's weights beside it.
            save_as_external_data=has_external_data(source) or needs_external_data(source),
            all_tensors_to_one_file=True,
            external_data_location=target.name + DATA_SUFFIX,
        )


def check_not_quantized(source: Path) -> None:
    """Raise OptimizeError for a model that has quantized tensors already."""
    found = operators(source) & _QUANTIZED
    if found:
        raise OptimizeError(f"{source}: is quantized already: it has {', '.join(sorted(found))} nodes")


def operators(path: Path) -> set[str]:
    """The operators of a model's main graph."""
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def check_names(path: Path, names: frozenset[str]) -> None:
    """Raise OptimizeError for a name that no node has."""
    known = {node.name for node in onnx.load(path, load_external_data=False).graph.node}
    unknown = min(names - known, default=None)
    if unknown is not None:
        raise OptimizeError(f"{path.name}: no node has the name {unknown!r}")
