"""The plans of `tests.fakes.plans`, built by the real TensorRT on the real GPU. Not yet run on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from predictd.engines.tensorrt.bindings import load_bindings
from tests.fakes.plans import PlanSpec, Tensor

_ONNX = {"FLOAT": 1, "UINT8": 2, "INT8": 3, "INT32": 6, "INT64": 7, "BOOL": 9, "HALF": 10, "BF16": 16}
_NODES = {
    "echo": (("Identity", ("x",), "y"),),
    "double": (("Add", ("x", "x"), "y"),),
    "sum_and_difference": (("Add", ("a", "b"), "sum"), ("Sub", ("a", "b"), "difference")),
    "nonzero": (("NonZero", ("x",), "y"),),
}


def build(spec: PlanSpec, path: Path) -> None:
    """Write the plan of a description."""
    bindings = load_bindings()
    trt, log = bindings.trt, bindings.new_log()
    builder = trt.Builder(log.logger)
    network = builder.create_network(bindings.network_flags())
    parser = trt.OnnxParser(network, log.logger)
    assert parser.parse(_model(spec)), log.reason()
    config = builder.create_builder_config()
    for flag in _flags(bindings, spec):
        config.set_flag(flag)
    for ranges in spec.profiles:
        profile = builder.create_optimization_profile()
        for tensor, shapes in zip(spec.inputs, ranges, strict=True):
            profile.set_shape(tensor.name, *shapes)
        assert config.add_optimization_profile(profile) >= 0, log.reason()
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.reason()
    path.write_bytes(bytes(memoryview(plan)))


def _flags(bindings: Any, spec: PlanSpec) -> list[Any]:
    """What versions with weakly typed networks want to be told of the types."""
    if bindings.network_flags() & 1 == 0 or bindings.weak_network_flags() is None:
        return []
    wanted = {"HALF": "FP16", "BF16": "BF16", "INT8": "INT8"}
    names = {wanted[t.dtype] for t in (*spec.inputs, *spec.outputs) if t.dtype in wanted}
    return [
        getattr(bindings.trt.BuilderFlag, name) for name in sorted(names) if bindings.has_builder_flag(name)
    ]


def _model(spec: PlanSpec) -> bytes:
    from onnx import helper

    def value(tensor: Tensor) -> Any:
        dims = [None if size < 0 else size for size in tensor.shape]
        return helper.make_tensor_value_info(tensor.name, _ONNX[tensor.dtype], dims)

    nodes = [
        helper.make_node(kind, list(sources), [result]) for kind, sources, result in _NODES[spec.operation]
    ]
    graph = helper.make_graph(nodes, "g", [value(t) for t in spec.inputs], [value(t) for t in spec.outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data
