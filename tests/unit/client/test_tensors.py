from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from predictd.client import BFloat16, InternalError, tensors, wire
from predictd.protos.v1 import predictd_pb2 as v1

NAMES = {
    "bool": v1.BOOL,
    "uint8": v1.UINT8,
    "uint16": v1.UINT16,
    "uint32": v1.UINT32,
    "uint64": v1.UINT64,
    "int8": v1.INT8,
    "int16": v1.INT16,
    "int32": v1.INT32,
    "int64": v1.INT64,
    "float16": v1.FP16,
    "float32": v1.FP32,
    "float64": v1.FP64,
}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def sent(value: tensors.TensorLike) -> v1.Tensor:
    parts = wire.request_parts(v1.PredictRequest(), [tensors.describe("x", value)])
    (tensor,) = v1.PredictRequest.FromString(wire.join(parts)).inputs
    return tensor


def read(tensor: v1.Tensor) -> tensors.Array:
    return tensors.read(tensor, tensor.data)


@st.composite
def numeric_arrays(draw: st.DrawFn) -> npt.NDArray[Any]:
    dtype = np.dtype(draw(st.sampled_from(sorted(NAMES)))).newbyteorder(draw(st.sampled_from("<>")))
    array: npt.NDArray[Any] = draw(hnp.arrays(dtype, draw(SHAPES)))
    if array.ndim and draw(st.booleans()):
        array = array[::-1].T
    return array


@given(numeric_arrays())
def test_every_number_comes_back(array: npt.NDArray[Any]) -> None:
    tensor = sent(array)
    back = read(tensor)
    assert tensor.dtype == NAMES[array.dtype.name]
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.dtype.isnative
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@given(hnp.arrays(object, SHAPES, elements=st.binary(max_size=9)))
def test_bytes_come_back(array: npt.NDArray[Any]) -> None:
    tensor = sent(array)
    back = read(tensor)
    assert tensor.dtype == v1.BYTES
    assert back.dtype == object
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    "texts",
    [
        np.array([["a", "né"], ["", "日本"]]),
        np.array([["a", "né"], ["", "日本"]], dtype=object),
        [["a", "né"], ["", "日本"]],
        np.array([[b"a", "né".encode()], [b"", "日本".encode()]]),
    ],
    ids=["str", "object", "list", "bytes"],
)
def test_text_is_sent_as_utf8(texts: npt.ArrayLike) -> None:
    back = read(sent(texts))
    assert back.tolist() == [[b"a", "né".encode()], [b"", "日本".encode()]]


def test_strings_are_prefixed_by_their_length() -> None:
    assert sent(np.array(["ab", ""])).data == b"\x02\0\0\0ab\0\0\0\0"


@given(hnp.arrays(np.uint16, SHAPES))
def test_bf16_comes_back_as_bits_from_either_form(bits: npt.NDArray[np.uint16]) -> None:
    for value in (bits.view(ml_dtypes.bfloat16), BFloat16(bits)):
        tensor = sent(value)
        assert tensor.dtype == v1.BF16
        np.testing.assert_array_equal(read(tensor), bits)


@given(hnp.arrays(np.uint16, SHAPES))
def test_bf16_reads_as_float32(bits: npt.NDArray[np.uint16]) -> None:
    expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(BFloat16(bits).to_float32(), expected)


@given(hnp.arrays(np.uint32, SHAPES))
def test_bf16_rounds_as_ml_dtypes_does(bits: npt.NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    rounded = BFloat16.from_float32(values).bits.view(ml_dtypes.bfloat16)
    # A NaN stays one; which of them is nobody's promise.
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(rounded.astype(np.float32), expected.astype(np.float32))


def test_bits_of_another_width_are_refused() -> None:
    with pytest.raises(TypeError, match="uint16, not float32"):
        BFloat16(np.zeros(2, np.float32))


def test_c_types_of_equal_width_are_one_dtype() -> None:
    assert sent(np.zeros(1, np.longlong)).dtype == sent(np.zeros(1, np.int_)).dtype == v1.INT64


def test_scalars_are_tensors_without_dimensions() -> None:
    tensor = sent(np.float32(2.5))
    assert list(tensor.shape) == []
    assert read(tensor)[()] == 2.5


def test_an_output_is_a_view_of_the_message_and_not_writable() -> None:
    back = read(sent(np.zeros(3)))
    assert not back.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            np.zeros(2, complex),
            TypeError,
            "input 'x': dtype complex128 is not supported; supported are bool,",
        ),
        (np.zeros(2, "datetime64[s]"), TypeError, "input 'x': dtype datetime64"),
        (np.zeros(2, [("a", "f4")]), TypeError, "input 'x': dtype"),
        (None, TypeError, "input 'x': an array of objects must hold str or bytes, not NoneType"),
        ([1, None], TypeError, "input 'x': an array of objects must hold str or bytes, not int"),
        ({"a": 1}, TypeError, "input 'x': an array of objects must hold str or bytes, not dict"),
        ([[1], [2, 3]], ValueError, "input 'x' is not an array: .*inhomogeneous"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sent(value)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (v1.Tensor(name="y", dtype=v1.FP32, shape=[2], data=b"1234567"), r"7 bytes .* \[2\] .* FP32 need 8"),
        (v1.Tensor(name="y", dtype=v1.FP32, shape=[-1], data=b""), r"shape \[-1\]"),
        (v1.Tensor(name="y", shape=[1], data=b"1"), "unknown dtype 0"),
        (v1.Tensor(name="y", dtype=v1.BYTES, shape=[1], data=b"\x02\0\0\0a"), "not the 1 strings"),
        (v1.Tensor(name="y", dtype=v1.BYTES, shape=[1], data=b"\x02\0"), "not the 1 strings"),
        (v1.Tensor(name="y", dtype=v1.BYTES, shape=[2], data=b"\x01\0\0\0a"), "not the 2 strings"),
    ],
)
def test_an_output_that_contradicts_itself_is_an_internal_error(tensor: v1.Tensor, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        read(tensor)
