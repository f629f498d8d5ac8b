"""Pruning for kernels that skip zeros: of four weights in a row of the contraction the two largest stay (2:4).

The hardware wants the zeros along the dimension that is summed over: of a MatMul and a Gemm that is the one shared by
both factors, of a convolution the input channels, each position of the kernel by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

Array = npt.NDArray[Any]

GROUP, KEPT = 4, 2
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class Pruning:
    """What became of the weights of a model.

    Attributes:
        pruned: Their names.
        kept: Name and reason of those that stayed as they were.
    """

    pruned: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def prune_array(weights: Array, axis: int) -> Array:
    """A copy in which each four neighbours along an axis have two zeros: the smallest, the later of equal ones.

    Args:
        weights: Their number along the axis is a multiple of four.
        axis: That of the contraction.
    """
    rows = np.moveaxis(weights, axis, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, GROUP)
    order = np.argsort(-np.abs(groups.astype(np.float64)), axis=-1, kind="stable")
    dropped = np.zeros(groups.shape, bool)
    np.put_along_axis(dropped, order[..., KEPT:], values=True, axis=-1)
    result = np.where(dropped, groups.dtype.type(0), groups)
    return np.ascontiguousarray(np.moveaxis(result.reshape(rows.shape), -1, axis))


def prune(model: ModelProto, exclude: frozenset[str] = frozenset()) -> Pruning:
    """Prune the weights of a model's MatMul, Gemm and Conv nodes, in place.

    Args:
        model: With its external data loaded.
        exclude: Nodes by name whose weights stay as they are.
    """
    graph = model.graph
    axes = _axes(graph, exclude)
    pruned, kept = [], []
    for tensor in graph.initializer:
        if tensor.name not in axes:
            continue
        axis = _contraction(tensor, axes[tensor.name])
        if isinstance(axis, str):
            kept.append((tensor.name, axis))
            continue
        tensor.CopyFrom(
            numpy_helper.from_array(prune_array(numpy_helper.to_array(tensor), axis), tensor.name)
        )
        pruned.append(tensor.name)
    return Pruning(tuple(pruned), tuple(kept))


def _contraction(tensor: TensorProto, axes: set[int | None]) -> int | str:
    """The axis to prune along, or why the weights have to stay."""
    if tensor.data_type not in _TYPES:
        return "not floating point"
    axis, *others = axes
    if axis is None or others:
        return "also used in another way"
    size = tensor.dims[axis]
    return axis if size % GROUP == 0 else f"{size} weights in a row are no multiple of {GROUP}"


def _axes(graph: GraphProto, exclude: frozenset[str]) -> dict[str, set[int | None]]:
    """By weight, along which of its axes its users contract; None for one that uses it in another way."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found: dict[str, set[int | None]] = {}
    uses = [(name, axis) for node in graph.node for name, axis in _uses(node, ranks, exclude)]
    for name, axis in uses:
        found.setdefault(name, set()).add(axis)
    for output in graph.output:
        found.setdefault(output.name, set()).add(None)
    return {name: axes for name, axes in found.items() if name in ranks and axes != {None}}


def _uses(
    node: NodeProto, ranks: dict[str, int], exclude: frozenset[str]
) -> Iterator[tuple[str, int | None]]:
    for at, name in enumerate(node.input):
        contracts = at == 1 and name in ranks and node.name not in exclude
        yield name, _axis(node, ranks[name]) if contracts else None
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from ((name, None) for name, _ in _uses(inner, ranks, exclude))


def _axis(node: NodeProto, rank: int) -> int | None:
    if node.domain not in ("", "ai.onnx") or rank < 2:
        return None
    match node.op_type:
        case "MatMul":
            return rank - 2
        case "Gemm":
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            return 1 if transposed else 0
        case "Conv":
            return 1
    return None
