"""Inputs to measure with: from files, made up, and in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.inputs import (
    MakeUp,
    Range,
    Sample,
    batch,
    converted,
    made_up,
    read_samples,
    sample_of,
)

X = TensorSpec("x", DType.FP32, (-1, 2))
IDS = TensorSpec("ids", DType.INT64, (-1, -1))
ONE = Signature((X,), (), batches=True)
TWO = Signature((X, IDS), (), batches=True)
REMEDY = "give --shape {name}:{shape}"


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


def test_the_files_of_a_folder_are_samples_in_the_order_of_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=np.ones((2, 2), np.float32))
    np.save(tmp_path / "a.npy", zeros(1, 2))
    (tmp_path / "readme.txt").write_text("no input")
    samples = read_samples(tmp_path, ONE)
    assert [sample.place for sample in samples] == [f"{tmp_path}/a.npy", f"{tmp_path}/b.npz"]
    (whole,) = batch(samples, 4, ONE)
    assert whole is not None
    assert whole.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("name", "arrays", "signature", "reason"),
    [
        ("f.npz", {"x": zeros(1, 3)}, ONE, "input 'x' is float32[1, 3]; the model takes FP32[-1, 2]"),
        ("f.npz", {"x": np.zeros((1, 2))}, ONE, "input 'x' is float64[1, 2]; the model takes FP32[-1, 2]"),
        ("f.npz", {"x": zeros(1, 2), "z": zeros(1)}, ONE, "the model has no input 'z'; it takes x"),
        ("f.npz", {"x": zeros(1, 2)}, TWO, "input 'ids' is missing"),
        ("f.npy", {"x": zeros(1, 2)}, TWO, "one array, but the model takes x, ids: give an .npz file"),
        ("f.npz", None, ONE, "no file of numbers or text as NumPy writes it"),
        ("f.npy", None, ONE, "no file of numbers or text as NumPy writes it"),
        ("f.txt", None, ONE, "inputs are .npz or .npy files"),
    ],
)
def test_what_is_wrong_with_a_file_names_it(
    name: str, arrays: dict[str, Any] | None, signature: Signature, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if arrays is None:
        path.write_bytes(b"nonsense")
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        np.save(path, arrays["x"])
    with pytest.raises(MeasureError) as caught:
        read_samples(path, signature)
    assert str(caught.value) == f"{path}: {reason}"


def test_an_empty_folder_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"no \.npz or \.npy file in it"):
        read_samples(tmp_path, ONE)


def test_made_up_inputs_are_as_they_are_told_and_always_the_same() -> None:
    wish = MakeUp({"ids": (-1, 5)}, {"ids": Range(3, 4), "x": Range(-2.0, -1.0)})
    x, ids = made_up(TWO, 50, wish, remedy=REMEDY).arrays
    assert x is not None
    assert ids is not None
    assert (x.shape, x.dtype.name, ids.shape, ids.dtype.name) == ((50, 2), "float32", (50, 5), "int64")
    assert -2 <= x.min() <= x.max() <= -1
    assert set(np.unique(ids)) == {3, 4}
    again = made_up(TWO, 50, wish, remedy=REMEDY).arrays[0]
    other = made_up(TWO, 50, wish, remedy=REMEDY, number=1).arrays[0]
    np.testing.assert_array_equal(x, again)
    assert other is not None
    assert not np.array_equal(x, other)


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (MakeUp(), "input 'ids' has dimensions that vary, ?x?: give --shape ids:Nx1"),
        (MakeUp({"y": (1,)}), "the model has no input 'y'; it takes x, ids"),
        (MakeUp({"ids": (-1, 5, 5)}), "input 'ids': the model takes ?x?, not ?x5x5"),
        (MakeUp({"ids": (-1, 5), "x": (-1, 3)}), "input 'x': the model takes ?x2, not ?x3"),
    ],
)
def test_what_cannot_be_made_up_names_the_input(wish: MakeUp, reason: str) -> None:
    with pytest.raises(MeasureError) as caught:
        made_up(TWO, 1, wish, remedy=REMEDY)
    assert str(caught.value) == reason


@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name)
def test_every_dtype_can_be_made_up(dtype: DType) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1, 3)),), (), batches=True)
    sample = made_up(signature, 4, MakeUp(), remedy=REMEDY)
    (array,) = sample_of("here", {"x": sample.arrays[0]}, signature).arrays  # type: ignore[dict-item]
    assert array is not None
    assert (array.shape, array.dtype) == ((4, 3), dtype.numpy)


def test_samples_that_make_no_batch_are_named() -> None:
    samples = [Sample(place, (zeros(1, 2), zeros(1, length))) for place, length in (("a", 3), ("b", 4))]
    with pytest.raises(MeasureError, match="input 'ids': a and b have shapes that make no batch"):
        batch(samples, 2, TWO)
    with pytest.raises(MeasureError, match="input 'x': c has no rows"):
        batch([Sample("c", (zeros(0, 2),))], 2, ONE)


def test_only_floating_point_numbers_are_converted() -> None:
    values = np.array([1.5, -2.0], np.float32)
    for dtype in (DType.FP16, DType.FP64, DType.BF16):
        there = converted(values, DType.FP32, dtype)
        assert there.dtype == dtype.numpy
        assert converted(there, dtype, DType.FP32).tolist() == [1.5, -2.0]
    assert converted(values, DType.FP32, DType.INT32) is values
