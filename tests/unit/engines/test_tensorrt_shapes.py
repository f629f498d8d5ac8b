"""Which profile runs, and how batches are cut."""

from __future__ import annotations

import pytest

from predictd.engines.tensorrt.shapes import Profile, ShapeRange, choose, misfit, slices

SMALL = Profile(0, (ShapeRange((1, 4), (1, 4), (2, 4)),))
LARGE = Profile(1, (ShapeRange((1, 4), (32, 4), (64, 4)),))


@pytest.mark.parametrize(("rows", "index"), [(1, 0), (2, 0), (3, 1), (64, 1), (65, None), (0, None)])
def test_the_nearest_profile_that_admits_the_shape(rows: int, index: int | None) -> None:
    profile = choose([SMALL, LARGE], [(rows, 4)])
    assert (profile and profile.index) == index


def test_of_equals_the_first() -> None:
    twin = Profile(2, LARGE.ranges)
    assert choose([twin, LARGE], [(8, 4)]) is LARGE


def test_a_shape_of_another_rank_is_not_admitted() -> None:
    assert choose([SMALL], [(1, 4, 1)]) is None


@pytest.mark.parametrize(
    ("rows", "most", "sizes"), [(1, 8, [1]), (8, 8, [8]), (9, 8, [5, 4]), (17, 8, [6, 6, 5]), (0, 8, [0])]
)
def test_parts_are_few_and_equal(rows: int, most: int, sizes: list[int]) -> None:
    parts = slices(rows, most)
    assert [part.stop - part.start for part in parts] == sizes
    assert [part.start for part in parts][1:] == [part.stop for part in parts][:-1]


def test_the_input_that_does_not_fit_is_named() -> None:
    two = ShapeRange((1, 4), (2, 4), (4, 4))
    profiles = [Profile(0, (two, two)), Profile(1, (ShapeRange((8, 4), (8, 4), (8, 4)),) * 2)]
    assert misfit(["a", "b"], profiles, [(4, 4), (9, 4)]) == (
        "input 'b' has shape [9, 4]; the plan takes [1, 4] to [4, 4], [8, 4] to [8, 4]"
    )
    assert misfit(["a", "b"], profiles, [(4, 4), (8, 4)]) == (
        "no profile of the plan takes the inputs together: 'a' [4, 4], 'b' [8, 4]"
    )
