"""For which shapes a plan is built: derived from batch sizes, named, or refused with input and values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.tensorrt.profiles import (
    NetworkInput,
    ProfileError,
    ShapeRange,
    ShapeWishes,
    make_profiles,
    parse_shapes,
)

IMAGES = NetworkInput("images", (-1, 3, 224, 224))
TEXT = NetworkInput("ids", (-1, -1))


def profiles(
    *inputs: NetworkInput,
    wishes: ShapeWishes | None = None,
    sizes: tuple[int, ...] = (8,),
    declared: dict[str, tuple[int, ...]] | None = None,
) -> list[dict[str, ShapeRange]]:
    return [dict(each) for each in make_profiles(inputs, wishes or ShapeWishes(), sizes, declared or {})]


def wishes(minimum: str = "", optimum: str = "", maximum: str = "") -> ShapeWishes:
    return ShapeWishes(*(parse_shapes([text]) if text else () for text in (minimum, optimum, maximum)))


def test_a_network_of_which_nothing_varies_needs_none() -> None:
    assert profiles(NetworkInput("x", (4, 4))) == []


def test_a_batch_dimension_follows_the_batch_sizes() -> None:
    assert profiles(IMAGES, sizes=(1, 8, 32)) == [
        {"images": ShapeRange(*((rows, 3, 224, 224) for rows in triple))}
        for triple in ((1, 1, 1), (2, 8, 8), (9, 32, 32))
    ]


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=6))
def test_every_batch_up_to_the_largest_has_exactly_one_profile(sizes: set[int]) -> None:
    found = profiles(IMAGES, sizes=tuple(sorted(sizes)))
    rows = [row for each in found for row in range(each["images"].minimum[0], each["images"].maximum[0] + 1)]
    assert rows == list(range(1, max(sizes) + 1))


def test_other_dimensions_come_from_the_configuration() -> None:
    assert profiles(TEXT, declared={"ids": (-1, 128)}) == [{"ids": ShapeRange((1, 128), (8, 128), (8, 128))}]


def test_named_shapes_make_one_profile_and_others_are_derived_beside_them() -> None:
    named = wishes("ids:1x1", "ids:8x128", "ids:32x512")
    assert profiles(TEXT, wishes=named, sizes=(4, 8)) == [{"ids": ShapeRange((1, 1), (8, 128), (32, 512))}]
    both = profiles(TEXT, IMAGES, wishes=named, sizes=(4,))
    assert both[0]["images"].maximum == (4, 3, 224, 224)
    assert profiles(TEXT, wishes=wishes(optimum="ids:2x7")) == [{"ids": ShapeRange((2, 7), (2, 7), (2, 7))}]


@pytest.mark.parametrize(
    ("network_input", "named", "words"),
    [
        (TEXT, wishes(), ("'ids'", "?x?", "dimension 1", "ids:1x1")),
        (IMAGES, wishes(optimum="imagse:1x3x224x224"), ("'imagse'", "no input", "'images'")),
        (TEXT, wishes("ids:9x1", "ids:8x1", "ids:32x1"), ("'ids'", "9x1", "8x1", "32x1")),
        (TEXT, wishes("ids:1x1", "ids:8x9", "ids:32x8"), ("'ids'", "1x1", "8x9", "32x8")),
        (IMAGES, wishes(optimum="images:1x3x225x224"), ("'images'", "?x3x224x224", "1x3x225x224")),
        (IMAGES, wishes(optimum="images:1x3x224"), ("'images'", "?x3x224x224", "1x3x224")),
        (TEXT, wishes("ids:1x1", maximum="ids:2x2"), ("'ids'", "least, best and most")),
        (NetworkInput("n", (2,), is_shape_tensor=True), wishes(), ("'n'", "decide about shapes")),
    ],
)
def test_what_contradicts_or_is_missing_is_named(
    network_input: NetworkInput, named: ShapeWishes, words: tuple[str, ...]
) -> None:
    with pytest.raises(ProfileError) as caught:
        profiles(network_input, wishes=named)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["x", ":1", "x:", "x:0x1", "x:1xa", "x:1x", "x:1,x:2", "x:-1", "x:²", ""])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"shapes such as|sizes of at least|one shape for"):
        parse_shapes([text])


def test_names_may_have_colons() -> None:
    assert parse_shapes(["serving:x:0:1x2,y:3"]) == (("serving:x:0", (1, 2)), ("y", (3,)))
