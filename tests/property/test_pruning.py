"""2:4 pruning: what the hardware wants holds for any weights, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, TensorProto, helper, numpy_helper

from predictd.engines.api import Array
from predictd.server.optimize.prune import prune, prune_array
from tests.fixtures.models import node

_FLOATS = st.floats(-1e3, 1e3, width=32)


@st.composite
def weights(draw: st.DrawFn) -> tuple[Array, int]:
    """An array and an axis along which it is a multiple of four."""
    rank = draw(st.integers(1, 4))
    axis = draw(st.integers(0, rank - 1))
    shape = [draw(st.integers(1, 3)) for _ in range(rank)]
    shape[axis] *= 4
    return draw(hnp.arrays(np.float32, tuple(shape), elements=_FLOATS)), axis


@given(weights())
def test_of_each_four_neighbours_the_two_largest_stay_as_they_were(drawn: tuple[Array, int]) -> None:
    before, axis = drawn
    after = prune_array(before, axis)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    for old, new in zip(_groups(before, axis), _groups(after, axis), strict=True):
        dropped = new != old
        assert np.count_nonzero(new) <= 2
        assert (new[dropped] == 0).all()
        kept = np.sort(np.abs(old))[2:]
        assert sorted(np.abs(new))[2:] == kept.tolist()


@given(weights())
def test_what_is_pruned_stays_as_it_is(drawn: tuple[Array, int]) -> None:
    before, axis = drawn
    once = prune_array(before, axis)
    np.testing.assert_array_equal(prune_array(once, axis), once)


def _groups(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, -1).reshape(-1, 4)


def model(nodes: Sequence[Any], arrays: dict[str, Array]) -> ModelProto:
    graph = helper.make_graph(
        nodes, "g", [], [], [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    )
    return helper.make_model(graph)


def array_of(made: ModelProto, name: str) -> Array:
    tensor: TensorProto = next(each for each in made.graph.initializer if each.name == name)
    array: Array = numpy_helper.to_array(tensor)
    return array


@pytest.mark.parametrize(
    ("nodes", "shape", "axis"),
    [
        ([node("MatMul", "x w", "y")], (8, 3), 0),
        ([node("MatMul", "x w", "y")], (2, 8, 3), 1),
        ([node("Gemm", "x w b", "y")], (8, 3), 0),
        ([node("Gemm", "x w b", "y", transB=1)], (3, 8), 1),
        ([node("Conv", "x w b", "y")], (2, 8, 3, 3), 1),
    ],
)
def test_the_zeros_lie_along_what_is_summed_over(
    nodes: list[object], shape: tuple[int, ...], axis: int
) -> None:
    before = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = model(nodes, {"w": before, "b": np.ones(4, np.float32)})
    assert prune(made).pruned == ("w",)
    np.testing.assert_array_equal(array_of(made, "w"), prune_array(before, axis))
    np.testing.assert_array_equal(array_of(made, "b"), np.ones(4, np.float32))


@pytest.mark.parametrize(
    ("nodes", "shape", "reason"),
    [
        ([node("Conv", "x w", "y")], (4, 3, 3, 3), "3 weights in a row are no multiple of 4"),
        ([node("MatMul", "x w", "y"), node("Gather", "w i", "z")], (4, 4), "also used in another way"),
        (
            [node("Gemm", "x w", "y"), node("Gemm", "x w", "z", transB=1)],
            (4, 4),
            "also used in another way",
        ),
    ],
)
def test_weights_that_cannot_be_pruned_stay_and_say_why(
    nodes: list[object], shape: tuple[int, ...], reason: str
) -> None:
    before = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = model(nodes, {"w": before})
    pruning = prune(made)
    assert pruning.pruned == ()
    assert pruning.kept == (("w", reason),)
    np.testing.assert_array_equal(array_of(made, "w"), before)


def test_integers_and_excluded_nodes_are_left_alone() -> None:
    arrays = {"w": np.ones((4, 4), np.int32), "v": np.ones((4, 4), np.float32)}
    nodes = [node("MatMul", "x w", "y"), node("MatMul", "x v", "z", name="kept")]
    made = model(nodes, arrays)
    assert prune(made, frozenset({"kept"})).kept == (("w", "not floating point"),)
    np.testing.assert_array_equal(array_of(made, "v"), arrays["v"])


def test_a_weight_that_an_inner_graph_uses_is_left_alone() -> None:
    inner = helper.make_graph([node("Relu", "w", "o")], "inner", [], [])
    nodes = [node("MatMul", "x w", "y"), node("If", "c", "z", then_branch=inner, else_branch=inner)]
    made = model(nodes, {"w": np.ones((4, 4), np.float32)})
    assert prune(made).kept == (("w", "also used in another way"),)
