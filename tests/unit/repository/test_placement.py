from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.repository.placement import Placeable, own_pool, place, pool_instances


def models(count: int) -> list[Placeable]:
    return [Placeable(f"m{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "cores", "pools"), [(8, 1, 8), (9, 1, 1), (9, 5, 9), (10, 5, 10), (11, 5, 1)]
)
def test_auto_gives_each_model_a_pool_while_there_are_few(count: int, cores: int, pools: int) -> None:
    assert len(place(models(count), "auto", cores)) == pools


def test_beyond_that_all_without_a_key_are_in_the_pool_called_shared() -> None:
    keyed = [Placeable("k1", pool_key="vision"), Placeable("k2", pool_key="vision")]
    placed = place([*models(9), *keyed], "auto", 1)
    assert placed == {"shared": tuple(f"m{number}" for number in range(9)), "vision": ("k1", "k2")}


def test_the_mode_decides_whatever_the_count() -> None:
    assert len(place(models(300), "per-model", 1)) == 300
    assert place(models(2), "shared", 64) == {"shared": ("m0", "m1")}


def test_a_key_holds_in_every_mode() -> None:
    keyed = [Placeable("a", pool_key="x"), Placeable("b"), Placeable("c", pool_key="x")]
    assert place(keyed, "per-model", 1) == {"x": ("a", "c"), "b": ("b",)}
    assert place(keyed, "shared", 1) == {"x": ("a", "c"), "shared": ("b",)}


def test_a_model_called_like_a_common_pool_still_has_its_own() -> None:
    clash = [Placeable("x"), Placeable("a", pool_key="x"), Placeable("shared")]
    assert place(clash, "per-model", 1) == {"x~own": ("x",), "x": ("a",), "shared~own": ("shared",)}


def test_long_names_are_shortened_and_stay_distinct() -> None:
    first, second = "m" * 255 + "1", "m" * 255 + "2"
    assert own_pool(first) != own_pool(second)
    assert len(own_pool(first)) == 64


_NAME = st.from_regex(r"[a-c][a-c.-]{0,2}", fullmatch=True) | st.sampled_from(["shared", "a" * 64, "a" * 256])
_KEY = st.from_regex(r"[a-c][a-c.-]{0,2}", fullmatch=True) | st.sampled_from(["shared", "a" * 64])
_MODEL = st.builds(Placeable, name=_NAME, pool_key=st.none() | _KEY)


@given(
    st.lists(_MODEL, unique_by=lambda model: model.name, max_size=30),
    st.sampled_from(["auto", "per-model", "shared"]),
    st.integers(1, 16),
)
def test_each_model_is_in_one_pool_and_no_pool_mixes_by_accident(
    placeables: list[Placeable], mode: str, cores: int
) -> None:
    placed = place(placeables, mode, cores)
    names = [name for members in placed.values() for name in members]
    assert sorted(names) == sorted(model.name for model in placeables)
    assert all(0 < len(pool) <= 68 for pool in placed)
    for model in placeables:
        if model.pool_key:
            assert model.name in placed[model.pool_key]
    keys = {model.name: model.pool_key for model in placeables}
    for pool, members in placed.items():
        if pool != "shared":
            assert len(members) == 1 or {keys[name] for name in members} == {pool}


def test_a_pool_has_the_workers_that_its_most_demanding_model_asks_for() -> None:
    assert pool_instances([Placeable("a", instances=3), Placeable("b")], 2) == 3
    assert pool_instances([Placeable("a", instances=1), Placeable("b")], 2) == 2
    assert pool_instances([Placeable("a", instances=1)], 2) == 1
