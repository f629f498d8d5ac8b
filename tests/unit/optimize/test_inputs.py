from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import Array, DType, Signature, TensorSpec
from predictd.server.measure.engine_process import MeasureError
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.inputs import batches, digest, read_inputs

ONE = Signature((TensorSpec("x", DType.FP32, (-1, 4)),), (TensorSpec("y", DType.FP32, (-1,)),), batches=True)
TWO = Signature(
    (TensorSpec("ids", DType.INT64, (-1, -1)), TensorSpec("mask", DType.INT64, (-1, -1))), (), batches=True
)
FIXED = Signature((TensorSpec("x", DType.FP32, (1, 4)),), (), batches=False)


def numbers(*shape: int, value: float = 1.0) -> Array:
    return np.full(shape, value, np.float32)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=numbers(2, 4, value=2))
    np.save(tmp_path / "a.npy", numbers(1, 4))
    (tmp_path / "notes.txt").write_text("not read")
    first, second = read_inputs(tmp_path, ONE)
    np.testing.assert_array_equal(first["x"], numbers(1, 4))
    np.testing.assert_array_equal(second["x"], numbers(2, 4, value=2))
    assert len(read_inputs(tmp_path / "b.npz", ONE)) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": numbers(2, 5)}, r"x\.npz: input 'x' is float32\[2, 5\]; the model takes FP32\[-1, 4\]"),
        ({"x": numbers(4)}, r"input 'x' is float32\[4\]; the model takes FP32\[-1, 4\]"),
        ({"x": numbers(2, 4).astype(np.float64)}, r"input 'x' is float64\[2, 4\]; the model takes FP32"),
        ({"y": numbers(2, 4)}, r"x\.npz: the model has no input 'y'; it takes x"),
        ({}, r"x\.npz: input 'x' is missing"),
        ({"x": numbers(0, 4)}, r"x\.npz: input 'x' is empty: its shape is \[0, 4\]"),
        (
            {"x": np.array([[1, 2, 3, np.nan], [np.inf, 2, 3, 4]], np.float32)},
            r"x\.npz: input 'x': 2 of its values are no finite numbers; the first is nan at \[0, 3\]",
        ),
        (
            {"x": np.array([[1, -np.inf, 3, 4]], np.float32)},
            r"1 of its values are no finite numbers; the first is -inf at \[0, 1\]",
        ),
    ],
)
def test_what_the_model_does_not_take_is_refused_with_file_and_input(
    arrays: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises((OptimizeError, MeasureError), match=message):
        read_inputs(tmp_path, ONE)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"no \.npz or \.npy file in it"):
        read_inputs(tmp_path, ONE)


def test_inputs_with_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=np.zeros((2, 3), np.int64), mask=np.zeros((1, 3), np.int64))
    with pytest.raises(
        OptimizeError, match=r"inputs with different numbers of rows: 'ids' has 2, 'mask' has 1"
    ):
        read_inputs(tmp_path, TWO)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=6), st.integers(1, 4))
def test_batches_hold_every_row_once_and_in_order(sizes: list[tuple[int, int]], rows: int) -> None:
    counter = iter(range(1000))
    samples = [
        {name: np.array([[next(counter)] * length for _ in range(count)]) for name in ("ids", "mask")}
        for count, length in sizes
    ]
    made = list(batches(samples, TWO, rows))
    for name in ("ids", "mask"):
        assert [row.tolist() for each in made for row in each[name]] == [
            row.tolist() for sample in samples for row in sample[name]
        ]
    assert all(1 <= len(each["ids"]) <= rows for each in made)
    # As few as the shapes allow.
    runs = [list(each["ids"].shape[1:]) for each in made]
    full = [len(each["ids"]) == rows for each in made]
    assert all(full[at] or runs[at] != runs[at + 1] for at in range(len(made) - 1))


def test_samples_of_a_model_that_does_not_batch_stay_as_they_are() -> None:
    samples = [{"x": numbers(1, 4)}, {"x": numbers(1, 4)}]
    assert list(batches(samples, FIXED, 8)) == samples


def test_the_digest_depends_on_names_shapes_values_and_order() -> None:
    one, other = {"x": numbers(1, 4)}, {"x": numbers(1, 4, value=2)}
    variants = [
        [one],
        [other],
        [one, other],
        [other, one],
        [{"x": numbers(4, 1)}],
        [{"y": numbers(1, 4)}],
    ]
    assert len({digest(each) for each in variants}) == len(variants)
    assert digest([one]) == digest([{"x": numbers(1, 4)}])
