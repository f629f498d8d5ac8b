"""INT8: as accurate as promised, and in the form that each target wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from predictd.engines.cache import CacheFolder
from predictd.server.cli.optimize import METHODS, TARGETS
from predictd.server.optimize import calibration, quantize
from predictd.server.optimize.calibration import Method
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.target import Target, needs_reduced_range
from predictd.server.optimize.wish import Precision
from tests.fixtures.models import identity
from tests.fixtures.nets import NETS, conv_net, cosine, mlp_net, outputs, signature, transform


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path).graph


def parameters(path: Path) -> list[tuple[str, np.dtype[np.generic], int, bool]]:
    """Of each node that quantizes or back: operator, type, number of scales, whether all zero points are 0."""
    graph = graph_of(path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return [
        (
            node.op_type,
            arrays[node.input[2]].dtype,
            arrays[node.input[1]].size,
            not arrays[node.input[2]].any(),
        )
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("target", "method"),
    [
        (Target.ONNXRUNTIME, Method.MINMAX),
        (Target.ONNXRUNTIME, Method.ENTROPY),
        (Target.ONNXRUNTIME, Method.PERCENTILE),
        (Target.TENSORRT, Method.PERCENTILE),
    ],
)
def test_outputs_stay_what_they_were(net: str, target: Target, method: Method, tmp_path: Path) -> None:
    model = NETS[net](tmp_path)
    before = model.path.read_bytes()
    made = transform(model, tmp_path / "work", precision=Precision.INT8, target=target, method=method)
    assert cosine(outputs(model.path, model.samples), outputs(made.path, model.samples)) >= 0.999
    assert signature(made.path) == signature(model.path)
    assert made.path.stat().st_size < len(before) * 0.6
    assert model.path.read_bytes() == before


def test_onnx_runtime_gets_unsigned_activations_and_a_scale_for_each_channel(tmp_path: Path) -> None:
    made = transform(conv_net(tmp_path), tmp_path / "work", precision=Precision.INT8)
    found = parameters(made.path)
    assert {dtype for operator, dtype, _, _ in found if operator == "QuantizeLinear"} == {np.dtype(np.uint8)}
    assert any(dtype == np.int8 and scales > 1 for _, dtype, scales, _ in found)


def test_tensorrt_gets_signed_numbers_without_zero_points_and_float_biases(tmp_path: Path) -> None:
    made = transform(conv_net(tmp_path), tmp_path / "work", precision=Precision.INT8, target=Target.TENSORRT)
    found = parameters(made.path)
    assert found
    assert {dtype for _, dtype, _, _ in found} == {np.dtype(np.int8)}
    assert all(zero for *_, zero in found)
    graph = graph_of(made.path)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    biases = [types[node.input[2]] for node in graph.node if node.op_type == "Conv"]
    assert biases == [TensorProto.FLOAT] * 4


def test_a_node_that_is_excluded_stays_as_it_is(tmp_path: Path) -> None:
    net = conv_net(tmp_path)
    made = transform(net, tmp_path / "work", precision=Precision.INT8, exclude=frozenset({"conv0_0"}))
    names = {tensor.name: tensor.data_type for tensor in graph_of(made.path).initializer}
    assert names["conv0_0_w"] == TensorProto.FLOAT
    assert "conv0_1_w" not in names


def test_reduced_range_keeps_weights_to_7_bits(tmp_path: Path) -> None:
    made = transform(conv_net(tmp_path), tmp_path / "work", precision=Precision.INT8, reduce_range=True)
    weights = [
        numpy_helper.to_array(each).astype(int)
        for each in graph_of(made.path).initializer
        if each.data_type == TensorProto.INT8 and len(each.dims) == 4
    ]
    assert weights
    assert max(np.abs(each).max() for each in weights) <= 64


@pytest.mark.parametrize(
    ("target", "cpuinfo", "reduced"),
    [
        (Target.ONNXRUNTIME, "flags\t\t: fpu avx2\n", True),
        (Target.ONNXRUNTIME, "flags\t\t: fpu avx2 avx512_vnni\n", False),
        (Target.ONNXRUNTIME, "flags\t\t: fpu avx2 avx_vnni\n", False),
        (Target.ONNXRUNTIME, "Features\t: asimddp\n", False),
        (Target.TENSORRT, "flags\t\t: fpu avx2\n", False),
    ],
)
def test_weights_of_8_bits_overflow_on_x86_without_vnni(target: Target, cpuinfo: str, reduced: bool) -> None:
    assert needs_reduced_range(target, cpuinfo) is reduced


@pytest.mark.parametrize("net", ["transformer", "mlp"])
def test_dynamic_quantization_needs_no_inputs(net: str, tmp_path: Path) -> None:
    model = NETS[net](tmp_path)
    made = transform(model, tmp_path / "work", precision=Precision.INT8_DYNAMIC)
    assert cosine(outputs(model.path, model.samples), outputs(made.path, model.samples)) >= 0.999
    assert made.path.stat().st_size < model.path.stat().st_size * 0.4


def test_dynamic_quantization_leaves_convolutions_alone(tmp_path: Path) -> None:
    made = transform(conv_net(tmp_path), tmp_path / "work", precision=Precision.INT8_DYNAMIC)
    operators = {node.op_type for node in graph_of(made.path).node}
    assert "Conv" in operators
    assert "ConvInteger" not in operators


def test_a_model_without_products_is_refused(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    net = type(net)(identity(tmp_path / "i.onnx", shape=("batch", 64)), net.samples)
    for precision in (Precision.INT8, Precision.INT8_DYNAMIC):
        with pytest.raises(OptimizeError, match="nothing in the model can be quantized"):
            transform(net, tmp_path / precision.name, precision=precision)


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    made = transform(net, tmp_path / "once", precision=Precision.INT8)
    again = type(net)(made.path, net.samples)
    with pytest.raises(OptimizeError, match=r"light\.onnx: is quantized already: it has DequantizeLinear"):
        transform(again, tmp_path / "twice", precision=Precision.INT8)


def test_an_unknown_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptimizeError, match=r"conv\.onnx: no node has the name 'conv9'"):
        transform(conv_net(tmp_path), tmp_path / "work", prune=True, exclude=frozenset({"conv9"}))


def test_calibration_that_fails_says_why(tmp_path: Path) -> None:
    net = NETS["transformer"](tmp_path)
    beyond = type(net)(net.path, [{"ids": np.array([[9999]])}])
    with pytest.raises(OptimizeError, match=r"calibration failed: .*indices element out of data bounds"):
        transform(beyond, tmp_path / "work", precision=Precision.INT8)


def test_ranges_are_kept_by_model_inputs_and_method(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "cache", 2**30)
    net = mlp_net(tmp_path)
    said: list[str] = []

    def calibrated(work: str, **what: object) -> bool:
        said.clear()
        transform(what.pop("net", net), tmp_path / work, said.append, cache, precision=Precision.INT8, **what)  # type: ignore[arg-type]
        return any(line.startswith("calibrating") for line in said)

    assert calibrated("first")
    assert not calibrated("again")
    assert any(line.startswith("ranges from an earlier calibration: ") for line in said)
    assert (tmp_path / "first/result/light.onnx").read_bytes() == (
        tmp_path / "again/result/light.onnx"
    ).read_bytes()
    # The ranges do not depend on it.
    assert not calibrated("other-target", target=Target.TENSORRT)
    assert calibrated("other-method", method=Method.ENTROPY)
    assert calibrated("other-inputs", net=type(net)(net.path, net.samples[1:]))
    assert calibrated("other-model", net=type(net)(NETS["mlp"](tmp_path).path, net.samples), prune=True)


def test_the_broken_method_is_not_offered() -> None:
    assert set(Method) == set(METHODS) == {"minmax", "entropy", "percentile"}
    assert tuple(Target) == TARGETS
    assert not hasattr(calibration.Method, "DISTRIBUTION")
    assert "Distribution" not in {method.method.name for method in Method}


def test_what_is_quantized_depends_on_target_and_convolutions(tmp_path: Path) -> None:
    convolutions, attention = conv_net(tmp_path).path, NETS["transformer"](tmp_path).path
    assert {"Conv", "Relu", "Flatten"} < set(quantize.static_operators(convolutions, Target.TENSORRT))
    assert quantize.static_operators(attention, Target.ONNXRUNTIME) == ("Gather", "MatMul")
    assert quantize.static_operators(attention, Target.TENSORRT) == ("MatMul",)
