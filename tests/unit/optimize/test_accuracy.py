"""Outputs of two models: zeros, NaN, classes, text, and outputs that are not the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from predictd.server.measure.engine_process import MeasureError
from predictd.server.optimize.accuracy import OutputAccuracy, accuracy

Array = npt.NDArray[Any]
NAN = float("nan")


def only(*pairs: tuple[Any, Any]) -> OutputAccuracy:
    (found,) = accuracy(
        [{"y": np.asarray(one)} for one, _ in pairs], [{"y": np.asarray(other)} for _, other in pairs]
    )
    return found


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([0.0, 0.0], [1.0, 0.0], 0.0),
        ([1.0, 0.0], [0.0, 1.0], 0.0),
        ([1.0, 2.0], [-1.0, -2.0], -1.0),
        ([3.0, 4.0], [6.0, 8.0], 1.0),
        ([1e200, 0.0], [1e200, 1e200], 0.5**0.5),
        ([1e-200, 0.0], [1e-200, 1e-200], 0.5**0.5),
        ([1, 0], [1, 1], 0.5**0.5),
        ([True, False], [True, True], 0.5**0.5),
    ],
)
def test_the_cosine(one: list[float], other: list[float], cosine: float) -> None:
    assert only((one, other)).cosine == pytest.approx(cosine)


def test_the_worst_sample_counts_beside_all_of_them_together() -> None:
    found = only(([100.0, 0.0], [100.0, 0.0]), ([0.0, 1.0], [1.0, 0.0]))
    assert found.cosine == pytest.approx(1.0, abs=1e-3)
    assert found.worst_cosine == 0.0
    assert found.max_abs_error == 1.0


def test_numbers_beside_nan_are_compared_and_what_is_broken_is_counted() -> None:
    found = only(([1.0, NAN, 3.0, np.inf], [1.5, NAN, NAN, np.inf]))
    assert (found.max_abs_error, found.broken_values, found.compared_values) == (0.5, 1, 1)
    found = only(([NAN], [NAN]))
    assert (found.broken_values, found.compared_values) == (0, 0)


@pytest.mark.parametrize(
    ("one", "other", "agreement"),
    [
        ([[1.0, 2.0], [3.0, 1.0]], [[0.0, 9.0], [0.0, 1.0]], 0.5),
        # Either of two equal scores is the right class.
        ([[2.0, 2.0]], [[1.0, 9.0]], 1.0),
        # A row with NaN has no class.
        ([[1.0, 2.0], [3.0, 1.0]], [[1.0, NAN], [3.0, 1.0]], 1.0),
        ([[1.0, 2.0], [NAN, NAN]], [[1.0, 2.0], [NAN, NAN]], 1.0),
        ([[NAN, NAN]], [[NAN, NAN]], None),
        # These do not look like scores of classes.
        ([1.0, 2.0], [1.0, 2.0], None),
        ([[1.0]], [[1.0]], None),
        ([[1, 2]], [[1, 2]], None),
    ],
)
def test_the_class_that_is_chosen(one: Any, other: Any, agreement: float | None) -> None:
    assert only((one, other)).top1_agreement == agreement


def test_text_is_the_same_or_not() -> None:
    found = only((np.array([b"a", b"bc"]), np.array([b"a", b"bcd"])))
    assert found == OutputAccuracy("y", None, None, None, None, 2, 1)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"y": [1.0]}, {"z": [1.0]}, "the original has 'y', the candidate 'z'"),
        ({"y": [1.0]}, {"y": [[1.0]]}, "output 'y': the original gives the shape [1], the candidate [1, 1]"),
        ({"y": [1.0]}, {"y": [b"1"]}, "output 'y': text in one of the models, numbers in the other"),
    ],
)
def test_outputs_that_cannot_be_compared_are_named(
    one: Mapping[str, Any], other: Mapping[str, Any], reason: str
) -> None:
    arrays = [{name: np.asarray(value) for name, value in each.items()} for each in (one, other)]
    with pytest.raises(MeasureError, match="output") as caught:
        accuracy([arrays[0]], [arrays[1]])
    assert reason in str(caught.value)
