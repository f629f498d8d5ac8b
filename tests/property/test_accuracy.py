"""How far outputs are apart, whatever numbers they hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.optimize.accuracy import OutputAccuracy, accuracy

Array = npt.NDArray[Any]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.floats()


def only(original: list[Array], candidate: list[Array]) -> OutputAccuracy:
    (found,) = accuracy([{"y": one} for one in original], [{"y": other} for other in candidate])
    return found


def rows(values: st.SearchStrategy[float]) -> st.SearchStrategy[Array]:
    return st.lists(st.tuples(values, values, values), min_size=1, max_size=5).map(np.array)


@given(st.lists(rows(ANY), min_size=1, max_size=3))
def test_a_model_agrees_with_itself(samples: list[Array]) -> None:
    found = only(samples, [sample.copy() for sample in samples])
    assert found.cosine is not None
    assert math.isclose(found.cosine, 1.0, abs_tol=1e-12)
    assert found.worst_cosine is not None
    assert math.isclose(found.worst_cosine, 1.0, abs_tol=1e-12)
    assert (found.max_abs_error, found.broken_values) == (0.0, 0)


@given(st.data(), rows(FINITE))
def test_cosines_have_bounds_and_the_error_is_the_largest(data: st.DataObject, one: Array) -> None:
    others = st.lists(FINITE, min_size=one.size, max_size=one.size)
    other = np.array(data.draw(others)).reshape(one.shape)
    found = only([one], [other])
    with np.errstate(over="ignore"):
        assert found.max_abs_error == np.abs(one - other).max()
    assert found.cosine is not None
    assert -1.0 <= found.cosine <= 1.0
    assert found.cosine == found.worst_cosine
    assert found.top1_agreement is not None
    assert 0.0 <= found.top1_agreement <= 1.0


@given(rows(ANY), st.data())
def test_every_value_that_is_a_number_in_one_alone_is_counted(one: Array, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.booleans(), min_size=one.size, max_size=one.size))
    broken = np.array(places).reshape(one.shape)
    other = np.where(broken, np.nan, one)
    found = only([one], [other])
    assert found.broken_values == int(np.sum(broken & ~np.isnan(one)))
    assert found.max_abs_error == 0.0


@given(rows(FINITE), st.floats(1e-3, 1e3), st.sampled_from([1e-300, 1.0]))
def test_the_angle_does_not_depend_on_lengths(one: Array, factor: float, unit: float) -> None:
    one = one / (np.abs(one).max() or 1.0) * unit
    found = only([one], [one * factor])
    assert found.cosine is not None
    # Of numbers that are no multiples of the smallest one by far.
    assert found.cosine > 1 - 1e-6
