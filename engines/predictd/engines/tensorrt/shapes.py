"""Which optimization profile a batch runs in, and how a batch that is too large is cut. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """What one profile takes of one input."""

    least: Shape
    best: Shape
    most: Shape

    def admits(self, shape: Shape) -> bool:
        """Whether a shape is within the range."""
        return len(shape) == len(self.least) and all(
            low <= size <= high for low, size, high in zip(self.least, shape, self.most, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """An optimization profile: a range for each input, in their order.

    Attributes:
        index: As TensorRT counts them.
    """

    index: int
    ranges: tuple[ShapeRange, ...]

    def admits(self, shapes: Sequence[Shape]) -> bool:
        """Whether all shapes are within their ranges."""
        return all(part.admits(shape) for part, shape in zip(self.ranges, shapes, strict=True))

    def distance(self, shapes: Sequence[Shape]) -> float:
        """How far shapes are from those that the profile was optimized for; 0 where they are the same."""
        return sum(
            abs(math.log(max(size, 1) / max(best, 1)))
            for part, shape in zip(self.ranges, shapes, strict=True)
            for best, size in zip(part.best, shape, strict=True)
        )

    @property
    def least_rows(self) -> int:
        """Rows that a batch must have."""
        return max((part.least[0] for part in self.ranges if part.least), default=1)

    @property
    def most_rows(self) -> int:
        """Rows that a batch may have."""
        return min((part.most[0] for part in self.ranges if part.most), default=1)


def choose(profiles: Sequence[Profile], shapes: Sequence[Shape]) -> Profile | None:
    """Of the profiles that admit these inputs the one that was optimized for the nearest; None if none does."""
    fitting = [profile for profile in profiles if profile.admits(shapes)]
    return min(fitting, key=lambda profile: (profile.distance(shapes), profile.index), default=None)


def slices(rows: int, most_rows: int) -> list[slice]:
    """Cut a batch into as few parts as there can be, as equal as they can be."""
    count = max(1, -(-rows // most_rows))
    small, longer = divmod(rows, count)
    ends = [small * part + min(part, longer) for part in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def misfit(names: Sequence[str], profiles: Sequence[Profile], shapes: Sequence[Shape]) -> str:
    """Why no profile takes these inputs, naming the first input that is to blame."""
    for at, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        ranges = [profile.ranges[at] for profile in profiles]
        if not any(part.admits(shape) for part in ranges):
            known = ", ".join(dict.fromkeys(f"{_text(part.least)} to {_text(part.most)}" for part in ranges))
            return f"input {name!r} has shape {_text(shape)}; the plan takes {known}"
    sizes = ", ".join(f"{name!r} {_text(shape)}" for name, shape in zip(names, shapes, strict=True))
    return f"no profile of the plan takes the inputs together: {sizes}"


def _text(shape: Shape) -> str:
    return str(list(shape))
