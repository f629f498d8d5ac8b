"""Optimization profiles: for which shapes of its inputs a plan is built. Pure.

A plan for a model with varying dimensions needs, of each, the least, the most, and the size at which it shall be
fastest. For the first dimension, where it varies, the batch sizes say all three; for any other somebody has to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
NamedShapes = tuple[tuple[str, Shape], ...]

_SIZE_MAX = 2**31 - 1


class ProfileError(Exception):
    """No profile can be made. The message is one line that names the input."""


@dataclass(frozen=True, slots=True)
class ShapeWishes:
    """Shapes that somebody named, by input.

    Attributes:
        minimum: The least.
        optimum: Where it shall be fastest.
        maximum: The most.
    """

    minimum: NamedShapes = ()
    optimum: NamedShapes = ()
    maximum: NamedShapes = ()


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """An input of a network.

    Attributes:
        shape: -1 where a dimension varies.
        is_shape_tensor: Its values, not only its shape, decide about the shapes of others.
    """

    name: str
    shape: Shape
    is_shape_tensor: bool = False

    @property
    def varies(self) -> bool:
        """Whether it needs a range."""
        return -1 in self.shape


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """For which shapes of an input."""

    minimum: Shape
    optimum: Shape
    maximum: Shape


Profile = Mapping[str, ShapeRange]


def parse_shapes(texts: Iterable[str]) -> NamedShapes:
    """Read shapes such as `x:1x3x224x224,mask:1x128`. A name may contain colons.

    Raises:
        ValueError: One cannot be read, or an input is named twice.
    """
    shapes: dict[str, Shape] = {}
    for text in (part for whole in texts for part in whole.split(",")):
        name, colon, sizes = text.strip().rpartition(":")
        numbers = sizes.split("x")
        if not colon or not name or not all(size.isascii() and size.isdigit() for size in numbers):
            raise ValueError(f"shapes such as x:1x3x224x224, with a comma between inputs: {text!r} is none")
        if name in shapes:
            raise ValueError(f"one shape for each input: {name!r} has two")
        shape = tuple(int(size) for size in numbers)
        if not all(1 <= size <= _SIZE_MAX for size in shape):
            raise ValueError(f"sizes of at least 1: {text!r} has another")
        shapes[name] = shape
    return tuple(shapes.items())


def make_profiles(
    inputs: Sequence[NetworkInput],
    wishes: ShapeWishes,
    batch_sizes: Sequence[int],
    declared: Mapping[str, Shape],
) -> list[Profile]:
    """The profiles of a plan; none for a network of which nothing varies.

    Args:
        inputs: Of the network.
        wishes: Shapes that somebody named.
        batch_sizes: Ascending; used for the first dimension of inputs that nobody named.
        declared: Shapes that the model's configuration gives, -1 where it leaves a dimension open.

    Raises:
        ProfileError: Something is missing, or contradicts the network.
    """
    by_name = {each.name: each for each in inputs}
    named = _named(by_name, wishes)
    for each in inputs:
        if each.is_shape_tensor and each.name not in named:
            raise ProfileError(
                f"the values of input {each.name!r} decide about shapes, which cannot be chosen for it: "
                "make it a constant of the model"
            )
    varying = [each for each in inputs if each.varies]
    if not varying:
        return []
    derived = [each for each in varying if each.name not in named]
    batches = _batches(batch_sizes) if derived else [(1, 1, 1)]
    return [
        {
            each.name: named.get(each.name) or _derived(each, batch, declared.get(each.name, ()))
            for each in varying
        }
        for batch in batches
    ]


def _batches(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Least, best and most of the batch dimension in each profile. The first takes single rows as well."""
    lows = [1, *(size + 1 for size in sizes[:-1])]
    return [(low, size, size) for low, size in zip(lows, sizes, strict=True)]


def _named(inputs: Mapping[str, NetworkInput], wishes: ShapeWishes) -> dict[str, ShapeRange]:
    minimum, optimum, maximum = dict(wishes.minimum), dict(wishes.optimum), dict(wishes.maximum)
    ranges = {}
    for name in {**minimum, **optimum, **maximum}:
        if name not in inputs:
            known = ", ".join(map(repr, inputs))
            raise ProfileError(
                f"shapes are given for {name!r}, which is no input of the model; it has {known}"
            )
        found = [shapes[name] for shapes in (minimum, optimum, maximum) if name in shapes]
        if len(found) == 2:
            raise ProfileError(f"input {name!r}: give least, best and most shape, or one for all three")
        ranges[name] = _checked(inputs[name], ShapeRange(*(found if len(found) == 3 else found * 3)))
    return ranges


def _checked(network_input: NetworkInput, wanted: ShapeRange) -> ShapeRange:
    name, shape = network_input.name, network_input.shape
    for given in (wanted.minimum, wanted.optimum, wanted.maximum):
        fits = len(given) == len(shape) and all(
            promised in (-1, size) for promised, size in zip(shape, given, strict=True)
        )
        if not fits:
            raise ProfileError(f"input {name!r} has the shape {_text(shape)}; {_text(given)} does not fit it")
    for low, best, high in zip(wanted.minimum, wanted.optimum, wanted.maximum, strict=True):
        if not low <= best <= high:
            raise ProfileError(
                f"input {name!r}: the shapes must not fall from least {_text(wanted.minimum)} over best "
                f"{_text(wanted.optimum)} to most {_text(wanted.maximum)}"
            )
    return wanted


def _derived(network_input: NetworkInput, batch: tuple[int, int, int], declared: Shape) -> ShapeRange:
    """The range of an input that nobody named: batch sizes, and what the configuration says of the rest."""
    name, shape = network_input.name, network_input.shape
    known = declared if len(declared) == len(shape) else (-1,) * len(shape)
    rest = []
    for index, (promised, said) in enumerate(zip(shape[1:], known[1:], strict=True), start=1):
        size = said if promised == -1 else promised
        if size == -1:
            raise ProfileError(
                f"input {name!r} has the shape {_text(shape)}, and nothing says for which sizes of dimension "
                f"{index} to build: give it least, best and most shapes, such as {_example(name, shape)}"
            )
        rest.append(size)
    firsts = batch if shape[0] == -1 else (shape[0],) * 3
    low, best, high = ((first, *rest) for first in firsts)
    return ShapeRange(low, best, high)


def _example(name: str, shape: Shape) -> str:
    return f"{name}:" + "x".join(str(size if size != -1 else 1) for size in shape)


def _text(shape: Shape) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape)
