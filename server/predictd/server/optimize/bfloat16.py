"""BF16 for matrix products and convolutions: half the size of their weights, the range of FP32.

Each of them gets its inputs cast to BF16 and its output cast back, so that inputs, outputs and all other nodes stay in
FP32; runtimes that compute in BF16 fuse the casts. ONNX Runtime has no BF16 kernels on the CPU. It does cast, though,
and so can emulate: values are rounded to BF16 where they would be, and multiplied in FP32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from predictd.server.optimize.errors import OptimizeError, refused

_PRODUCTS = {"MatMul", "Gemm", "Conv"}
# Of the ONNX standard: the first version in which the operator takes BF16.
_OPSET = 13
_OPSET_CONV = 22


def to_bf16(source: Path, exclude: frozenset[str], *, emulate: bool = False) -> ModelProto:
    """A model that computes its products in BF16.

    Args:
        source: A file in which types have been inferred.
        exclude: Nodes that stay in FP32.
        emulate: Round as BF16 would, but compute in FP32.

    Raises:
        OptimizeError: It cannot be converted.
    """
    model = onnx.load(source)
    if not emulate:
        model = _raise_opset(model)
    converter = _Converter(model.graph, exclude, emulate=emulate)
    if not converter.convert():
        raise OptimizeError("nothing in the model can be converted to BF16")
    return model


def _raise_opset(model: ModelProto) -> ModelProto:
    wanted = _OPSET_CONV if any(node.op_type == "Conv" for node in model.graph.node) else _OPSET
    given = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if given >= wanted:
        return model
    with refused(f"BF16 needs opset {wanted}, and the model, of opset {given}, cannot be converted"):
        return version_converter.convert_version(model, wanted)


class _Converter:
    """One graph on its way."""

    def __init__(self, graph: GraphProto, exclude: frozenset[str], *, emulate: bool) -> None:
        self._graph = graph
        self._exclude = exclude
        self._emulate = emulate
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        } | {name: tensor.data_type for name, tensor in self._weights.items()}
        self._nodes: list[NodeProto] = []
        self._cast: dict[str, str] = {}

    def convert(self) -> bool:
        """Whether there was anything to convert."""
        for node in self._graph.node:
            if self._wanted(node):
                self._product(node)
            else:
                self._nodes.append(node)
        nodes = [_copy(node) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        self._drop_unused()
        return bool(self._cast)

    def _wanted(self, node: NodeProto) -> bool:
        return (
            node.op_type in _PRODUCTS
            and node.domain in ("", "ai.onnx")
            and node.name not in self._exclude
            and all(self._types.get(name) == TensorProto.FLOAT for name in node.input if name)
        )

    def _product(self, node: NodeProto) -> None:
        output = node.output[0]
        converted = _copy(node)
        converted.input[:] = [self._narrow(name) if name else "" for name in node.input]
        converted.output[0] = f"{output}_bf16"
        self._nodes.append(converted)
        narrowed = self._rounded(converted.output[0]) if self._emulate else converted.output[0]
        self._nodes.append(_cast(narrowed, output, TensorProto.FLOAT))

    def _narrow(self, name: str) -> str:
        """The name of a tensor in BF16."""
        if name not in self._cast:
            weight = self._weights.get(name)
            if weight is not None:
                self._cast[name] = self._narrow_weight(weight)
            elif self._emulate:
                rounded = self._rounded(name)
                self._cast[name] = f"{name}_as_bf16"
                self._nodes.append(_cast(rounded, self._cast[name], TensorProto.FLOAT))
            else:
                self._cast[name] = f"{name}_as_bf16"
                self._nodes.append(_cast(name, self._cast[name], TensorProto.BFLOAT16))
        return self._cast[name]

    def _narrow_weight(self, weight: TensorProto) -> str:
        array: Any = numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16)
        name = f"{weight.name}_as_bf16"
        kept = array.astype("float32") if self._emulate else array
        self._graph.initializer.append(numpy_helper.from_array(kept, name))
        return name

    def _rounded(self, name: str) -> str:
        rounded = f"{name}_rounded"
        self._nodes.append(_cast(name, rounded, TensorProto.BFLOAT16))
        return rounded

    def _drop_unused(self) -> None:
        used = _used(self._graph)
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        copies = [_copy(tensor) for tensor in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(copies)


def _used(graph: GraphProto) -> set[str]:
    used = {output.name for output in graph.output}
    for node in graph.node:
        used.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                used |= _used(inner)
    return used


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=to)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
