from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.oip_contents import raw_contents
from predictd.server.frontend.apis.oip_inference import decode

FIELDS = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
}


@st.composite
def numeric_tensors(draw: st.DrawFn) -> tuple[DType, npt.NDArray[Any]]:
    dtype = draw(st.sampled_from(sorted(FIELDS)))
    shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return dtype, draw(hnp.arrays(dtype.numpy, shape))


@given(numeric_tensors())
def test_typed_and_raw_numbers_are_the_same_tensor(tensor: tuple[DType, npt.NDArray[Any]]) -> None:
    dtype, array = tensor
    head = {"name": "x", "datatype": dtype.name, "shape": array.shape}
    typed = pb.ModelInferRequest(model_name="m")
    typed.inputs.add(**head, contents={FIELDS[dtype]: array.ravel().tolist()})
    raw = pb.ModelInferRequest(model_name="m", raw_input_contents=[array.tobytes()])
    raw.inputs.add(**head)
    # The sign of a NaN and its payload may be lost in a list of Python floats.
    if not (array.dtype.kind == "f" and np.isnan(array).any()):
        assert decode(typed.SerializeToString()) == decode(raw.SerializeToString())
    else:
        (decoded,) = decode(typed.SerializeToString()).inputs
        np.testing.assert_array_equal(np.frombuffer(decoded.data, dtype.numpy), array.ravel())


@given(st.lists(st.binary(max_size=300)))
def test_typed_strings_get_a_little_endian_length_each(values: list[bytes]) -> None:
    raw = raw_contents("s", DType.BYTES, [len(values)], pb.InferTensorContents(bytes_contents=values))
    assert raw == b"".join(struct.pack("<I", len(value)) + value for value in values)


@pytest.mark.parametrize(
    ("dtype", "contents", "given"),
    [
        (DType.INT8, pb.InferTensorContents(int_contents=[1, 128]), "128"),
        (DType.INT8, pb.InferTensorContents(int_contents=[-129, 1]), "-129"),
        (DType.INT16, pb.InferTensorContents(int_contents=[0, 2**15]), "32768"),
        (DType.UINT8, pb.InferTensorContents(uint_contents=[256, 3]), "256"),
        (DType.UINT16, pb.InferTensorContents(uint_contents=[2, 2**16]), "65536"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(
    dtype: DType, contents: pb.InferTensorContents, given: str
) -> None:
    with pytest.raises(InvalidRequestError, match=rf"input 'x': {given} is not an {dtype.name}"):
        raw_contents("x", dtype, [2], contents)


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
def test_a_dtype_without_a_field_is_refused(dtype: DType) -> None:
    with pytest.raises(InvalidRequestError, match=f"{dtype.name} has no typed contents"):
        raw_contents("x", dtype, [1], pb.InferTensorContents(fp32_contents=[1]))


def test_elements_in_the_field_of_another_dtype_are_refused() -> None:
    contents = pb.InferTensorContents(fp32_contents=[1, 2], int64_contents=[1])
    with pytest.raises(InvalidRequestError, match="input 'x': FP32 is sent in fp32_contents, not in int64"):
        raw_contents("x", DType.FP32, [2], contents)


@pytest.mark.parametrize("shape", [[3], [2, 2], [], [-1, -2], [0], [2**62, 2**62]])
def test_elements_must_be_as_many_as_the_shape_says(shape: list[int]) -> None:
    contents = pb.InferTensorContents(fp32_contents=[1, 2])
    with pytest.raises(InvalidRequestError, match="does not fit 2 elements of fp32_contents"):
        raw_contents("x", DType.FP32, shape, contents)
    assert len(raw_contents("x", DType.FP32, [2, 1], contents)) == 4 * math.prod([2, 1])
