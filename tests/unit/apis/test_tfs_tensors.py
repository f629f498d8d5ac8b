from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from predictd.engines.api import DType
from predictd.protos.tfs import tensor_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.tfs_tensors import (
    data_type,
    decode_tensor,
    encode_tensor,
    join_strings,
    string_elements,
)
from predictd.server.frontend.inference import InputTensor, OutputTensor

LIMIT = 1 << 20
NUMBERS = [dtype for dtype in DType if dtype is not DType.BYTES]
# The list that belongs to each dtype.
LISTS = {
    DType.BOOL: "bool_val",
    DType.UINT8: "int_val",
    DType.UINT16: "int_val",
    DType.UINT32: "uint32_val",
    DType.UINT64: "uint64_val",
    DType.INT8: "int_val",
    DType.INT16: "int_val",
    DType.INT32: "int_val",
    DType.INT64: "int64_val",
    DType.FP16: "half_val",
    DType.BF16: "half_val",
    DType.FP32: "float_val",
    DType.FP64: "double_val",
}


def shape_of(*sizes: int) -> pb.TensorShapeProto:
    return pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes])


def decoded(tensor: pb.TensorProto, bytes_max: int = LIMIT) -> InputTensor:
    return decode_tensor("x", tensor, bytes_max)


def numbers(tensor: pb.TensorProto) -> list[Any]:
    result = decoded(tensor)
    array: list[Any] = np.frombuffer(result.data, result.dtype.numpy).tolist()
    return array


def strings(tensor: pb.TensorProto) -> list[bytes]:
    return list(string_elements(decoded(tensor).data))


def encoded(dtype: DType, shape: tuple[int, ...], data: bytes, *, as_content: bool = False) -> pb.TensorProto:
    tensor = pb.TensorProto()
    encode_tensor(OutputTensor("x", dtype, shape, memoryview(data)), tensor, as_content=as_content)
    return tensor


@st.composite
def numeric(draw: st.DrawFn) -> tuple[DType, tuple[int, ...], bytes]:
    dtype = draw(st.sampled_from(NUMBERS))
    array = draw(arrays.arrays(dtype.numpy, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))
    return dtype, array.shape, array.tobytes()


@st.composite
def textual(draw: st.DrawFn) -> tuple[DType, tuple[int, ...], bytes]:
    shape = draw(arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
    count = math.prod(shape)
    elements = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
    return DType.BYTES, shape, join_strings(elements)


@given(numeric() | textual(), st.booleans())
def test_what_is_written_is_read_again(
    tensor: tuple[DType, tuple[int, ...], bytes], as_content: bool
) -> None:
    dtype, shape, data = tensor
    message = encoded(dtype, shape, data, as_content=as_content)
    again = decoded(pb.TensorProto.FromString(message.SerializeToString()))
    assert (again.dtype, again.shape, bytes(again.data)) == (dtype, shape, data)
    assert message.HasField("tensor_shape")
    filled = {field.name for field, _ in message.ListFields()} - {"dtype", "tensor_shape"}
    if math.prod(shape):
        assert filled == {"tensor_content" if as_content else LISTS.get(dtype, "string_val")}
    else:
        assert not filled


@given(st.data())
def test_a_short_list_is_filled_with_its_last_element_and_a_long_one_is_cut(data: st.DataObject) -> None:
    # The half types are listed as bit patterns, which has a test of its own.
    dtype = data.draw(st.sampled_from([d for d in NUMBERS if d not in (DType.FP16, DType.BF16)]))
    array = data.draw(arrays.arrays(dtype.numpy, st.integers(1, 6)))
    count = data.draw(st.integers(1, 8))
    message = pb.TensorProto(dtype=data_type(dtype), tensor_shape=shape_of(count))
    getattr(message, LISTS[dtype]).extend(array.tolist())
    expected = np.concatenate([array[:count], np.repeat(array[-1:], max(0, count - len(array)))])
    np.testing.assert_array_equal(numbers(message), expected)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_list_without_elements_stands_for_zeros(dtype: DType) -> None:
    assert numbers(pb.TensorProto(dtype=data_type(dtype), tensor_shape=shape_of(2, 2))) == [0] * 4


def test_strings_follow_the_same_rules() -> None:
    def tensor(*values: bytes) -> pb.TensorProto:
        return pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(3), string_val=values)

    assert strings(tensor()) == [b"", b"", b""]
    assert strings(tensor(b"a", b"bc")) == [b"a", b"bc", b"bc"]
    assert strings(tensor(b"a", b"", b"\0", b"d")) == [b"a", b"", b"\0"]


def test_a_tensor_without_a_shape_is_a_scalar() -> None:
    result = decoded(pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1.5]))
    assert (result.shape, np.frombuffer(result.data, np.float32).tolist()) == ((), [1.5])


def test_an_empty_tensor_needs_no_elements_and_ignores_any() -> None:
    for message in (
        pb.TensorProto(dtype=pb.DT_INT64, tensor_shape=shape_of(0, 2**62)),
        pb.TensorProto(dtype=pb.DT_INT64, tensor_shape=shape_of(2, 0), int64_val=[1], tensor_content=b"x"),
    ):
        assert bytes(decoded(message).data) == b""


def test_content_comes_before_lists() -> None:
    message = pb.TensorProto(
        dtype=pb.DT_INT32, tensor_shape=shape_of(2), tensor_content=b"\1\0\0\0\2\0\0\0", int_val=[7, 7]
    )
    assert numbers(message) == [1, 2]


# Bit patterns, as TensorFlow casts them: a client without unsigned types sends 200 as -56.
@pytest.mark.parametrize(
    ("dtype", "sent", "value"),
    [
        (pb.DT_UINT8, -56, 200),
        (pb.DT_UINT8, 256 + 3, 3),
        (pb.DT_INT8, 200, -56),
        (pb.DT_UINT16, -1, 65535),
        (pb.DT_INT16, 65535, -1),
        (pb.DT_INT32, -(2**31), -(2**31)),
        (pb.DT_HALF, 0x3C00, 1.0),
        (pb.DT_HALF, -0x4400, -1.0),
        (pb.DT_BFLOAT16, 0x3F80, 0x3F80),
    ],
)
def test_what_a_small_type_cannot_hold_loses_its_high_bits(
    dtype: pb.DataType, sent: int, value: float
) -> None:
    field = "half_val" if dtype in (pb.DT_HALF, pb.DT_BFLOAT16) else "int_val"
    message = pb.TensorProto(dtype=dtype, tensor_shape=shape_of(1))
    getattr(message, field).append(sent)
    assert numbers(message) == [value]


def test_a_list_is_read_however_it_came() -> None:
    head = b"\x08\x01\x12\x04\x12\x02\x08\x04"
    unpacked = head + b"".join(b"\x2d" + np.float32(value).tobytes() for value in (1, 2, 3, 4))
    pieces = head + b"\x2a\x08" + np.array([1, 2], "<f4").tobytes() + b"\x2a\x08"
    pieces += np.array([3, 4], "<f4").tobytes()
    unknown = pieces + b"\xf8\x3f\x01"
    for wire in (unpacked, pieces, unknown):
        message = pb.TensorProto.FromString(wire)
        assert numbers(message) == [1, 2, 3, 4]
        assert message == pb.TensorProto.FromString(wire)


# Written by hand from the definition of protocol buffers: tags, lengths and elements.
@pytest.mark.parametrize(
    ("dtype", "shape", "data", "wire"),
    [
        (DType.FP32, (2, 1), "0000803f000000c0", "0801 1208 12020802 12020801 2a08 0000803f000000c0"),
        (DType.FP64, (1,), "000000000000f03f", "0802 1204 12020801 3208 000000000000f03f"),
        (
            DType.INT32,
            (3,),
            "01000000 2c010000 ffffffff",
            "0803 1204 12020803 3a0d 01 ac02 ffffffffffffffffff01",
        ),
        (DType.UINT8, (2,), "01c8", "0804 1204 12020802 3a03 01 c801"),
        (DType.INT16, (1,), "feff", "0805 1204 12020801 3a0a feffffffffffffffff01"),
        (DType.INT8, (1,), "80", "0806 1204 12020801 3a0a 80ffffffffffffffff01"),
        (DType.BYTES, (2,), "020000006869 00000000", "0807 1204 12020802 42026869 4200"),
        (
            DType.INT64,
            (2,),
            "0500000000000000 ffffffffffffffff",
            "0809 1204 12020802 520b 05 ffffffffffffffffff01",
        ),
        (DType.BOOL, (3,), "010002", "080a 1204 12020803 5a03 010001"),
        (DType.BF16, (1,), "803f", "080e 1204 12020801 6a02 807f"),
        (DType.UINT16, (1,), "ffff", "0811 1204 12020801 3a03 ffff03"),
        (DType.FP16, (2,), "003c00c0", "0813 1204 12020802 6a05 8078 808003"),
        (DType.UINT32, (1,), "ffffffff", "0816 1204 12020801 820105 ffffffff0f"),
        (DType.UINT64, (1,), "ffffffffffffffff", "0817 1204 12020801 8a010a ffffffffffffffffff01"),
        (DType.FP32, (), "0000803f", "0801 1200 2a04 0000803f"),
        (DType.FP32, (0,), "", "0801 1202 1200"),
    ],
)
def test_lists_have_the_bytes_of_tensorflow(
    dtype: DType, shape: tuple[int, ...], data: str, wire: str
) -> None:
    message = encoded(dtype, shape, bytes.fromhex(data))
    assert message.SerializeToString().hex(" ") == bytes.fromhex(wire).hex(" ")


def test_content_has_the_bytes_of_tensorflow() -> None:
    text = join_strings([b"hi", b"", b"x" * 300])
    message = encoded(DType.BYTES, (3,), text, as_content=True)
    assert message.tensor_content == b"\x02\x00\xac\x02hi" + b"x" * 300
    assert encoded(DType.UINT16, (2,), b"\1\2\3\4", as_content=True).tensor_content == b"\1\2\3\4"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.TensorProto(), "dtype DT_INVALID is not supported"),
        (pb.TensorProto(dtype=pb.DT_COMPLEX64), "dtype DT_COMPLEX64 is not supported"),
        (pb.TensorProto(dtype=pb.DT_INT4), "dtype DT_INT4 is not supported"),
        (pb.TensorProto(dtype=pb.DT_QINT8), "dtype DT_QINT8 is not supported"),
        (pb.TensorProto.FromString(b"\x08\x65"), "dtype 101 is not supported"),
        (
            pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=pb.TensorShapeProto(unknown_rank=True)),
            "shape is unknown",
        ),
        (pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape_of(-1, 2)), r"invalid shape \[-1, 2\]"),
        (pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape_of(*[1] * 255)), "invalid shape"),
        (
            pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape_of(2), tensor_content=b"1234567"),
            r"tensor_content has 7 bytes, FP32\[2\] 8",
        ),
        (
            pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape_of(2), double_val=[1, 2]),
            "DT_FLOAT is sent in float_val, not in double_val",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(2), int_val=[1]),
            "DT_STRING is sent in string_val, not in int_val",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(2), tensor_content=b"\1"),
            "lengths of 2 strings",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(1), tensor_content=b"\x80"),
            "lengths of 1 strings",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(1), tensor_content=b"\x80" * 5 + b"\0"),
            "lengths of 1 strings",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(2), tensor_content=b"\1\1abc"),
            "3 bytes for strings of 2 bytes",
        ),
        (
            pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(1), tensor_content=b"\2a"),
            "1 bytes for strings of 2 bytes",
        ),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(message: pb.TensorProto, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^tensor parsing error: x: .*{reason}"):
        decoded(message)


@pytest.mark.parametrize(
    "message",
    [
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape_of(2**62, 2**62), float_val=[1]),
        pb.TensorProto(dtype=pb.DT_UINT8, tensor_shape=shape_of(1001)),
        pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(251)),
        pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(100), string_val=[b"7 bytes"]),
    ],
)
def test_a_few_bytes_cannot_become_more_than_a_message_may_have(message: pb.TensorProto) -> None:
    with pytest.raises(InvalidRequestError, match=r"x: shape .* is larger than a message may be \(1000 byt"):
        decoded(message, bytes_max=1000)


def test_what_fits_exactly_is_taken() -> None:
    assert len(decoded(pb.TensorProto(dtype=pb.DT_UINT8, tensor_shape=shape_of(1000)), 1000).data) == 1000
    text = pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=shape_of(100), string_val=[b"6bytes"])
    assert len(decoded(text, 1000).data) == 1000


def test_a_number_that_is_not_one_keeps_its_bits() -> None:
    data = bytes.fromhex("0100a07f")
    assert bytes(decoded(encoded(DType.FP32, (1,), data)).data) == data
