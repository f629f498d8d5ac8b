"""An ONNX model as a network of TensorRT's, in the precision that was asked for.

Until version 10 flags of the builder choose the precision of each layer. Since 11, and in TensorRT-RTX, types are
strong: the model itself says what is computed in what, so for FP16 it is converted first, and for BF16 and INT8 it
must have come so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictd.engines.tensorrt.bindings import Bindings, Log
from predictd.engines.tensorrt.build_options import BuildError, BuildOptions, Precision
from predictd.engines.tensorrt.profiles import NetworkInput

_FLAGS = {Precision.FP16: ("FP16",), Precision.BF16: ("BF16",), Precision.INT8: ("INT8",)}
_TYPES = {Precision.FP16: "HALF", Precision.BF16: "BF16"}
_SHOWN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """A parsed model. What TensorRT made must live together, so it is kept together.

    Attributes:
        flags: Of the builder that the precision needs.
    """

    builder: Any
    network: Any
    parser: Any
    flags: tuple[str, ...]

    @property
    def inputs(self) -> list[NetworkInput]:
        """Of the network, in order."""
        tensors = [self.network.get_input(index) for index in range(self.network.num_inputs)]
        return [NetworkInput(each.name, tuple(each.shape), bool(each.is_shape_tensor)) for each in tensors]


def read_onnx(bindings: Bindings, log: Log, model: Path, options: BuildOptions, folder: Path) -> OnnxNetwork:
    """Parse a model.

    Args:
        bindings: Of TensorRT.
        log: Where it tells what fails.
        model: The file.
        options: Of the build.
        folder: For a converted copy of the model.

    Raises:
        BuildError: It cannot be parsed, has operators that TensorRT lacks, or is not of the precision.
    """
    precision = options.precision
    weak = bindings.weak_network_flags()
    if precision not in _FLAGS:
        return _parse(bindings, log, model, bindings.network_flags(), ())
    if weak is not None:
        parsed = _parse(bindings, log, model, weak, _known_flags(bindings, precision))
        _check_quantized(bindings, parsed, precision)
        return parsed
    parsed = _parse(bindings, log, model, bindings.network_flags(), ())
    _check_quantized(bindings, parsed, precision)
    if precision is Precision.INT8 or _computes_in(bindings, parsed, _TYPES[precision]):
        return parsed
    if precision is Precision.BF16:
        raise BuildError(
            f"{bindings.label} takes the precision from the model, and this one does not compute in bf16: "
            "convert it first (predictd optimize --bf16 --target tensorrt), or take fp16"
        )
    return _parse(bindings, log, _in_half_precision(model, folder), bindings.network_flags(), ())


def _parse(
    bindings: Bindings, log: Log, model: Path, flags: int, builder_flags: tuple[str, ...]
) -> OnnxNetwork:
    log.clear()
    trt = bindings.trt
    builder = trt.Builder(log.logger)
    network = builder.create_network(flags) if builder is not None else None
    if network is None:
        raise BuildError(log.reason())
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(os.fspath(model)):
        raise BuildError(_parse_errors(parser) or log.reason())
    return OnnxNetwork(builder, network, parser, builder_flags)


def _parse_errors(parser: Any) -> str:
    """What the parser says, an operator that is not supported by its name; the most telling first."""
    texts = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator = error.node_operator() if hasattr(error, "node_operator") else ""
        node = error.node_name() if hasattr(error, "node_name") else ""
        described = " ".join(str(error.desc()).split())
        where = f"operator {operator} (node {node or error.node()!r})" if operator else ""
        texts.append(f"{where} is not supported: {described}" if where else described)
    return "; ".join(list(dict.fromkeys(texts))[:_SHOWN_ERRORS])


def _known_flags(bindings: Bindings, precision: Precision) -> tuple[str, ...]:
    flags = _FLAGS[precision]
    for name in flags:
        if not bindings.has_builder_flag(name):
            raise BuildError(f"{bindings.label} does not build in {precision}")
    return flags


def _check_quantized(bindings: Bindings, parsed: OnnxNetwork, precision: Precision) -> None:
    if precision is not Precision.INT8:
        return
    quantize = bindings.trt.LayerType.QUANTIZE
    network = parsed.network
    if not any(network.get_layer(index).type == quantize for index in range(network.num_layers)):
        raise BuildError(
            "int8 needs a model with QuantizeLinear operators, which carry the scales, and this one has none: "
            "quantize it first (predictd optimize --int8 --target tensorrt)"
        )


def _computes_in(bindings: Bindings, parsed: OnnxNetwork, type_name: str) -> bool:
    wanted = getattr(bindings.trt.DataType, type_name)
    layers = (parsed.network.get_layer(index) for index in range(parsed.network.num_layers))
    return any(layer.get_output(0).dtype == wanted for layer in layers if layer.num_outputs)


def _in_half_precision(model: Path, folder: Path) -> Path:
    """A copy of a model that computes in FP16, with the inputs and outputs that it had."""
    try:
        import onnx
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise BuildError(
            f"this TensorRT takes the precision from the model, and converting it to fp16 needs the package "
            f"{error.name}: install it, or export the model in fp16"
        ) from error
    try:
        converted = float16.convert_float_to_float16(onnx.load(os.fspath(model)), keep_io_types=True)
    except (ValueError, RuntimeError, KeyError, TypeError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"it cannot be converted to fp16: {' '.join(str(error).split())}") from error
    copy = folder / "model.onnx"
    onnx.save_model(converted, os.fspath(copy), save_as_external_data=True, location="weights.bin")
    return copy
