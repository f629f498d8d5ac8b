"""The texts were recorded from ONNX Runtime 1.31."""

import pytest

from predictd.engines.api import EngineError, InvalidInputError
from predictd.engines.onnxruntime import messages

SRC = "/onnxruntime_src/onnxruntime/core"
RAN = "Non-zero status code returned while running"

GATHER = (
    f"Error in execution: {RAN} Gather node. Name:'' Status Message: "
    "indices element out of data bounds, idx=9 must be within the inclusive range [-2,1]"
)
RESHAPE = (
    f"[ONNXRuntimeError] : 1 : FAIL : {RAN} Reshape node. Name:'flat' Status Message: "
    f"{SRC}/providers/cpu/tensor/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper("
    "const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) "
    "input_shape_size == requested_shape_size was false. The input tensor cannot be reshaped to the "
    "requested shape. Input shape:{2,4}, requested shape:{7,3}\n"
)
MATMUL = f"{RAN} MatMul node. Name:'' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch"
DIVISION = f"{RAN} Div node. Name:'' Status Message: element_wise_ops.cc:692 Compute Integer division by zero"
DIMENSIONS = (
    "Error in execution: Got invalid dimensions for input: x for the following indices\n"
    " index: 1 Got: 5 Expected: 4\n Please fix either the inputs/outputs or the model."
)
RANK = (
    "Error in execution: Invalid rank for input: x Got: 1 Expected: 2 "
    "Please fix either the inputs/outputs or the model."
)
MEMORY = (
    f"Error in execution: {RAN} Expand node. Name:'' Status Message: {SRC}/framework/bfc_arena.cc:360 "
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
    "Failed to allocate memory for requested buffer of size 4000000000000\n"
)
OUTPUT = (
    f"Error in execution: {RAN} Identity node. Name:'' Status Message: {SRC}/framework/op_kernel.cc:87 "
    "virtual OrtValue* onnxruntime::OpKernelContext::OutputMLValue(int, const onnxruntime::TensorShape&) "
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : The output OrtValue provided for output 'y' of node '' "
    "(Identity) has shape {2,4} but the computed output shape for this run is {3,4}. When calling Run() ..."
)


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        (
            GATHER,
            InvalidInputError,
            (
                "Gather node: indices element out of data bounds, "
                "idx=9 must be within the inclusive range [-2,1]"
            ),
        ),
        (
            RESHAPE,
            InvalidInputError,
            (
                "Reshape node 'flat': The input tensor cannot be reshaped to the requested shape. "
                "Input shape:{2,4}, requested shape:{7,3}"
            ),
        ),
        (MATMUL, InvalidInputError, "MatMul node: MatMul dimension mismatch"),
        (DIVISION, InvalidInputError, "Div node: Integer division by zero"),
        (
            DIMENSIONS,
            InvalidInputError,
            "Got invalid dimensions for input: x for the following indices index: 1 Got: 5 Expected: 4",
        ),
        (RANK, InvalidInputError, "Invalid rank for input: x Got: 1 Expected: 2"),
        (
            MEMORY,
            EngineError,
            "Expand node: Failed to allocate memory for requested buffer of size 4000000000000",
        ),
        ("", EngineError, "no reason given"),
    ],
)
def test_run_errors(text: str, kind: type[EngineError], line: str) -> None:
    error = messages.run_error(RuntimeError(text))
    assert type(error) is kind
    assert str(error) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            (
                "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /m/a b.onnx failed:"
                "Protobuf parsing failed."
            ),
            "Protobuf parsing failed",
        ),
        (
            (
                f"[ONNXRuntimeError] : 1 : FAIL : Load model from /m/m.onnx failed:{SRC}/graph/model.cc:256 "
                "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, "
                "const onnxruntime::logging::Logger&) Unsupported model IR version: 99, "
                "max supported IR version: 13\n"
            ),
            "Unsupported model IR version: 99, max supported IR version: 13",
        ),
        (
            (
                f"Load model from /m/m.onnx failed:{SRC}/graph/model_load_utils.h:46 void f("
                "const std::unordered_map<std::__cxx11::basic_string<char>, int>&, bool, const std::string&) "
                "const ONNX Runtime only *guarantees* support for ..."
            ),
            "ONNX Runtime only *guarantees* support for",
        ),
    ],
)
def test_load_errors_lose_codes_paths_and_source_positions(text: str, line: str) -> None:
    assert messages.one_line(text) == line


def test_a_refused_output_buffer_is_recognised() -> None:
    assert messages.refuses_output_shape(RuntimeError(OUTPUT))
    assert not messages.refuses_output_shape(RuntimeError(DIMENSIONS))


def test_an_unfinished_signature_is_kept() -> None:
    assert messages.one_line("/a/b.cc:1 void f(int") == "void f(int"
