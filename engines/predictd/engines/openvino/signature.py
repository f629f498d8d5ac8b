"""From an OpenVINO model to a `Signature`: names, dtypes, dimensions, and whether it batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predictd.engines.api import DType, ModelLoadError, Signature, TensorSpec
from predictd.engines.openvino.runtime import openvino

if TYPE_CHECKING:
    from collections.abc import Sequence

ELEMENT_TYPES = {
    DType.BOOL: openvino.Type.boolean,
    DType.UINT8: openvino.Type.u8,
    DType.UINT16: openvino.Type.u16,
    DType.UINT32: openvino.Type.u32,
    DType.UINT64: openvino.Type.u64,
    DType.INT8: openvino.Type.i8,
    DType.INT16: openvino.Type.i16,
    DType.INT32: openvino.Type.i32,
    DType.INT64: openvino.Type.i64,
    DType.FP16: openvino.Type.f16,
    DType.BF16: openvino.Type.bf16,
    DType.FP32: openvino.Type.f32,
    DType.FP64: openvino.Type.f64,
}
_DTYPES = {element.get_type_name(): dtype for dtype, element in ELEMENT_TYPES.items()}


def describe(model: Any) -> Signature:
    """The signature of a model.

    Raises:
        ModelLoadError: An input or output is of a type that is not served, or there is no output.
    """
    if not model.outputs:
        raise ModelLoadError("a model without outputs")
    inputs = _specs("input", model.inputs)
    outputs = _specs("output", model.outputs)
    return Signature(inputs, outputs, batches=_batches(model, inputs, outputs))


def echoes(model: Any) -> dict[int, int]:
    """The outputs that are inputs, by index, and which; OpenVINO takes the two for one tensor."""
    parameters = {node.friendly_name: index for index, node in enumerate(model.get_parameters())}
    sources = [output.node.input_value(0).get_node() for output in model.outputs]
    return {
        index: parameters[source.friendly_name]
        for index, source in enumerate(sources)
        if source.get_type_name() == "Parameter"
    }


def _specs(role: str, ports: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs: dict[str, TensorSpec] = {}
    for port in ports:
        name = port.any_name if port.names else port.node.friendly_name
        if name in specs:
            # Two outputs may be one tensor, and then they share its names.
            name = port.node.friendly_name
        specs[name] = _spec(role, name, port)
    if len(specs) < len(ports):
        raise ModelLoadError(f"several {role}s are called alike")
    return tuple(specs.values())


def _spec(role: str, name: str, port: Any) -> TensorSpec:
    dtype = _DTYPES.get(port.element_type.get_type_name())
    if dtype is None:
        kind = port.element_type.get_type_name()
        raise ModelLoadError(f"{role} {name!r} is of type {kind}, which is not served")
    if port.partial_shape.rank.is_dynamic:
        raise ModelLoadError(f"{role} {name!r} declares no shape, so its dimensions are unknown")
    return TensorSpec(
        name, dtype, tuple(-1 if size.is_dynamic else size.get_length() for size in port.partial_shape)
    )


def _batches(model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    if not inputs or not all(spec.shape and spec.shape[0] == -1 for spec in (*inputs, *outputs)):
        return False
    rows, shapes = _followed(model)
    # A batch by batch matrix, such as pairwise distances, mixes the rows of all requests. An operator that loses
    # the mark of the first dimension may keep the rows nevertheless, which a run shows.
    return not any(
        size.get_symbol() == rows for shape in shapes for size in list(shape)[1:] if size.get_symbol()
    )


def _followed(model: Any) -> tuple[Any, list[Any]]:
    """A mark that is put on the first dimension of all inputs, and the shapes of the outputs with it."""
    marked, rows = model.clone(), openvino.Symbol()
    for parameter in marked.get_parameters():
        first, *others = parameter.get_partial_shape()
        first = openvino.Dimension(first.get_min_length(), first.get_max_length())
        first.set_symbol(rows)
        parameter.set_partial_shape(openvino.PartialShape([first, *others]))
    marked.validate_nodes_and_infer_types()
    return rows, [output.partial_shape for output in marked.outputs]
