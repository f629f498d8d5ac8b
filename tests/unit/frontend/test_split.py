"""Requests that name neither version nor label, divided among versions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.errors import ModelUnavailableError
from predictd.server.frontend.routing import Routes
from tests.fixtures.frontend import SECRET, publication, view

DRAWS = 10_000


def drawn(routes: Routes, draws: int = DRAWS) -> Counter[int]:
    return Counter(routes.lane("m", None, None).version for _ in range(draws))


def chi_square(found: Counter[int], shares: Sequence[tuple[int, int]]) -> float:
    total = sum(percent for _, percent in shares)
    expected = {version: found.total() * percent / total for version, percent in shares}
    assert found.keys() <= expected.keys()
    return sum((found[version] - number) ** 2 / number for version, number in expected.items())


# By the distribution with as many degrees of freedom, a fair draw is beyond these once in a hundred thousand times.
CHI_SQUARE_MAX = {1: 19.5, 2: 23.0, 3: 25.9}


@pytest.mark.parametrize(
    "split", [((1, 90), (2, 10)), ((2, 1), (1, 99)), ((1, 50), (2, 30), (3, 20)), ((3, 60), (2, 40))]
)
def test_draws_follow_the_percentages(split: Sequence[tuple[int, int]]) -> None:
    routes = Routes(SECRET, random.Random(1).random)
    routes.publish(publication(view(3), view(2), view(1), split=split))
    assert chi_square(drawn(routes), split) < CHI_SQUARE_MAX[len(split) - 1]


def test_a_version_that_is_not_ready_leaves_its_share_to_the_others_in_proportion() -> None:
    routes = Routes(SECRET, random.Random(2).random)
    split = ((1, 60), (2, 20), (3, 20))
    routes.publish(publication(view(3), view(2, "LOADING"), view(1), split=split))
    assert chi_square(drawn(routes), ((1, 60), (3, 20))) < CHI_SQUARE_MAX[1]
    routes.publish(publication(view(3, "FAILED"), view(2, "LOADING"), view(1), split=split))
    assert drawn(routes, 100) == {1: 100}


def test_a_split_of_which_nothing_is_ready_is_as_none() -> None:
    routes = Routes(SECRET)
    routes.publish(publication(view(3), view(2, "LOADING"), view(1), split=((2, 90), (7, 10))))
    assert drawn(routes, 100) == {3: 100}
    routes.publish(publication(view(2, "LOADING"), split=((2, 100),)))
    with pytest.raises(ModelUnavailableError, match=r"^version 2 of model 'm' is still loading$"):
        routes.lane("m", None, None)


def test_a_version_or_a_label_is_never_drawn_for() -> None:
    def draw() -> float:
        raise AssertionError("drawn")

    routes = Routes(SECRET, draw)
    routes.publish(publication(view(2), view(1), labels={"canary": 2}, split=((1, 50), (2, 50))))
    routes.publish(publication(view(1), name="whole"))
    assert routes.lane("m", 1, None).version == 1
    assert routes.lane("m", None, "canary").version == 2
    assert routes.lane("whole", None, None).version == 1


def test_metadata_of_the_default_is_that_of_the_largest_share_each_time() -> None:
    routes = Routes(SECRET, random.Random(3).random)
    routes.publish(publication(view(2), view(1), split=((1, 51), (2, 49))))
    assert {routes.version("m", None, None).version for _ in range(100)} == {1}
    assert (routes.model("m").default_version, routes.model("m").split) == (1, ((1, 51), (2, 49)))


def test_a_flip_takes_effect_between_two_requests() -> None:
    routes = Routes(SECRET, random.Random(4).random)
    routes.publish(publication(view(2), view(1), split=((1, 100),)))
    assert drawn(routes, 100) == {1: 100}
    routes.publish(publication(view(2), view(1), split=((2, 100),)))
    assert drawn(routes, 100) == {2: 100}
    routes.publish(publication(view(2), view(1)))
    assert drawn(routes, 100) == {2: 100}


@st.composite
def splits(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Percentages that make 100."""
    cuts = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    return list(zip(draw(st.permutations(range(1, len(parts) + 1))), parts, strict=True))


@given(splits(), st.sets(st.integers(1, 6), min_size=1))
def test_each_version_is_drawn_for_exactly_its_part_of_the_interval(
    split: list[tuple[int, int]], ready: set[int]
) -> None:
    """Points at equal distances are a draw without chance: each version gets its number exactly."""
    shares = [(version, percent) for version, percent in split if version in ready]
    total = sum(percent for _, percent in shares)
    points = iter([(place + 0.5) / total for place in range(total)])
    routes = Routes(SECRET, lambda: next(points))
    views = [view(version, "READY" if version in ready else "LOADING") for version in range(6, 0, -1)]
    routes.publish(publication(*views, split=split))
    if shares:
        assert drawn(routes, total) == dict(shares)
    else:
        assert drawn(routes, 3) == {max(ready): 3}
