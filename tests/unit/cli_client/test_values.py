from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.client import BFloat16, TensorSpec
from predictd.server.cli.values import InputError, read_value

if TYPE_CHECKING:
    from pathlib import Path


def spec(dtype: str) -> TensorSpec:
    return TensorSpec("x", dtype, (-1,))


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        ("BOOL", "[true, false]", np.array([True, False])),
        ("UINT8", "[0, 255]", np.array([0, 255], np.uint8)),
        ("INT8", "[-128]", np.array([-128], np.int8)),
        ("INT64", "[[1, 2], [3, 4]]", np.array([[1, 2], [3, 4]], np.int64)),
        ("UINT64", "[18446744073709551615]", np.array([2**64 - 1], np.uint64)),
        ("FP16", "[1, 0.5]", np.array([1, 0.5], np.float16)),
        ("FP32", "[1, 2]", np.array([1, 2], np.float32)),
        ("FP32", "[NaN, -Infinity]", np.array([np.nan, -np.inf], np.float32)),
        ("FP64", "0.1", np.array(0.1)),
        ("INT32", "5", np.array(5, np.int32)),
        ("FP32", "[]", np.array([], np.float32)),
        ("INT64", "[[]]", np.zeros((1, 0), np.int64)),
        ("BYTES", '[["a", "é"]]', np.array([["a", "é"]], object)),
        ("BYTES", '"a"', np.array("a", object)),
    ],
)
def test_json_becomes_what_the_model_takes(dtype: str, text: str, expected: np.ndarray) -> None:
    value = read_value(spec(dtype), text)
    assert isinstance(value, np.ndarray)
    assert value.dtype == expected.dtype
    assert value.shape == expected.shape
    np.testing.assert_array_equal(value, expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_no_integer_is_changed(numbers: list[int]) -> None:
    value = read_value(spec("INT64"), str(numbers))
    assert isinstance(value, np.ndarray)
    assert value.tolist() == numbers


def test_json_becomes_bf16_rounded() -> None:
    value = read_value(spec("BF16"), "[1, 3.14159]")
    assert isinstance(value, BFloat16)
    expected = np.array([1, 3.14159], np.float32).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(value.bits, expected.view(np.uint16))


@pytest.mark.parametrize(
    ("dtype", "text", "message"),
    [
        ("FP32", "hello", r"input 'x': 'hello' is neither JSON nor @FILE"),
        ("FP32", '["a"]', r"input 'x': the model takes FP32, which these values are not"),
        ("FP32", "[null]", r"the model takes FP32"),
        ("FP32", '{"a": 1}', r"the model takes FP32"),
        ("FP32", "[1e300]", r"overflow"),
        ("INT64", "[1.5]", r"the model takes INT64"),
        ("INT64", "[9223372036854775808]", r"INT64 holds -9223372036854775808 to 9223372036854775807"),
        ("UINT8", "[256]", r"UINT8 holds 0 to 255"),
        ("UINT8", "[-1]", r"UINT8 holds 0 to 255"),
        ("BOOL", "[1]", r"the model takes BOOL"),
        ("FP32", "[[1], [2, 3]]", r"input 'x': .*inhomogeneous"),
        ("BYTES", '[["a"], ["b", "c"]]', r"the model takes strings"),
        ("BYTES", "[1]", r"the model takes strings"),
        ("UNKNOWN_99", "[1]", r"does not know the dtype UNKNOWN_99"),
    ],
)
def test_values_that_do_not_fit_are_refused(dtype: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_value(spec(dtype), text)


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    value = read_value(spec("FP32"), f"@{tmp_path}/a.npy")
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.int16
    np.testing.assert_array_equal(value, array)


def test_an_archive_gives_the_array_that_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=np.array([1]), right=np.array([2]))
    value = read_value(spec("INT64"), f"@{tmp_path}/a.npz:right")
    assert isinstance(value, np.ndarray)
    assert value.tolist() == [2]


@pytest.mark.parametrize("suffix", ["", ":middle"])
def test_an_archive_tells_its_names(tmp_path: Path, suffix: str) -> None:
    np.savez(tmp_path / "a.npz", left=np.array([1]), right=np.array([2]))
    with pytest.raises(InputError, match=r"a\.npz:NAME, where NAME is one of left, right"):
        read_value(spec("INT64"), f"@{tmp_path}/a.npz{suffix}")


@pytest.mark.parametrize("dtype", [np.uint16, ml_dtypes.bfloat16])
def test_a_file_for_a_bf16_input_holds_its_bits(tmp_path: Path, dtype: Any) -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)
    np.save(tmp_path / "a.npy", bits.view(dtype))
    value = read_value(spec("BF16"), f"@{tmp_path}/a.npy")
    assert isinstance(value, BFloat16)
    assert value.bits.tolist() == bits.tolist()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 'x': .*/none\.npy: No such file"):
        read_value(spec("FP32"), f"@{tmp_path}/none.npy")


@pytest.mark.parametrize("content", [b"", b"hello, world", b"PK\x03\x04 no archive"])
def test_a_file_that_holds_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy is no \.npy or \.npz file"):
        read_value(spec("FP32"), f"@{tmp_path}/a.npy")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match=r"of numbers or strings"):
        read_value(spec("FP32"), f"@{tmp_path}/a.npy")
