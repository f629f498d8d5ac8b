"""INT8 by ONNX Runtime's quantizer: static, with ranges from calibration; dynamic, with ranges found in each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

from predictd.server.optimize.calibration import Method
from predictd.server.optimize.errors import OptimizeError, refused
from predictd.server.optimize.onnx_file import needs_external_data
from predictd.server.optimize.preparing import operators
from predictd.server.optimize.target import FORMS, Target

# What INT8 makes faster.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Tables, such as embeddings, which ONNX Runtime looks up in INT8.
_TABLES = ("Gather",)
# Between convolutions, what passes INT8 on saves the way to FP32 and back. In transformers, whose normalizations want
# FP32 in any case, the same only costs accuracy.
_BETWEEN_CONVOLUTIONS = (
    *("Relu", "Clip", "Add", "Concat", "Pad", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"),
)
# ConvInteger, the dynamic convolution, is several times slower than FP32. Of Gather it is the size.
_DYNAMIC = ("MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM"}


def static_operators(model: Path, target: Target) -> tuple[str, ...]:
    """The operators of a model that static quantization is for."""
    found = operators(model)
    between = _BETWEEN_CONVOLUTIONS if "Conv" in found else ()
    tables = _TABLES if target is Target.ONNXRUNTIME else ()
    return tuple(sorted(found.intersection((*_PRODUCTS, *between, *tables))))


def static(
    model: Path,
    result: Path,
    table: Path,
    method: Method,
    target: Target,
    *,
    kinds: Sequence[str],
    exclude: frozenset[str],
    reduce_range: bool,
) -> None:
    """Quantize weights and activations.

    Args:
        model: The prepared model.
        result: The file to write.
        table: Ranges of its tensors.
        method: By which they were found.
        target: Decides the form.
        kinds: Operators to quantize.
        exclude: Nodes that stay as they are.
        reduce_range: Weights get 7 bits.

    Raises:
        OptimizeError: It cannot be quantized.
    """
    form = FORMS[target]
    with refused("cannot be quantized"):
        quantize_static(
            str(model),
            str(result),
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(kinds),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QInt8 if form.signed_activations else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(exclude),
            use_external_data_format=needs_external_data(model),
            calibrate_method=method.method,
            calibration_cache_path=str(table),
            extra_options=dict(form.options),
        )
    _check_changed(result)


def dynamic(model: Path, result: Path, *, exclude: frozenset[str], reduce_range: bool) -> None:
    """Quantize weights; activations are quantized anew in each run.

    Raises:
        OptimizeError: It cannot be quantized.
    """
    with refused("cannot be quantized"):
        quantize_dynamic(
            str(model),
            str(result),
            op_types_to_quantize=list(_DYNAMIC),
            per_channel=False,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(exclude),
            use_external_data_format=needs_external_data(model),
        )
    _check_changed(result)


def _check_changed(result: Path) -> None:
    if not operators(result) & _QUANTIZED:
        raise OptimizeError("nothing in the model can be quantized this way")
