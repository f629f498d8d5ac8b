"""How far the outputs of one model are from those of another on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.server.measure.engine_process import MeasureError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Outputs = Mapping[str, "Array"]
# More than anybody's classes; as many logits are something else, such as a mask.
_CLASSES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class OutputAccuracy:
    """One output of a model against that of the original, over all samples.

    Attributes:
        name: Of the output.
        cosine: Of the angle between all values together, taken as two vectors: 1 where they are the same; two
            vectors of zeros are, one of zeros and another one have 0. None for text.
        worst_cosine: Of the sample in which it is smallest; None for text.
        max_abs_error: The largest difference between two values; None for text.
        top1_agreement: The share of rows without NaN whose largest value is the same class; None where there is none,
            or where the output does not look like scores of classes.
        compared_values: That are numbers in both; of text, all elements.
        broken_values: Where one has a number and the other has none (NaN), or an infinity of its own; of text the
            elements that differ.
    """

    name: str
    cosine: float | None
    worst_cosine: float | None
    max_abs_error: float | None
    top1_agreement: float | None
    compared_values: int
    broken_values: int


def accuracy(original: Sequence[Outputs], candidate: Sequence[Outputs]) -> tuple[OutputAccuracy, ...]:
    """Compare the outputs of two models.

    Args:
        original: Of each sample, by name; at least one sample.
        candidate: The same of the other model, in the same order.

    Raises:
        MeasureError: Their names, shapes or kinds differ.
    """
    names = original[0].keys()
    if names != candidate[0].keys():
        raise MeasureError(
            f"the outputs are not the same: the original has {_listed(names)}, the candidate {_listed(candidate[0])}"
        )
    return tuple(
        _output(name, [sample[name] for sample in original], [sample[name] for sample in candidate])
        for name in names
    )


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


def _output(name: str, original: Sequence[Array], candidate: Sequence[Array]) -> OutputAccuracy:
    for one, other in zip(original, candidate, strict=True):
        if one.shape != other.shape:
            raise MeasureError(
                f"output {name!r}: the original gives the shape {list(one.shape)}, "
                f"the candidate {list(other.shape)}"
            )
        if (one.dtype.kind in "OSU") != (other.dtype.kind in "OSU"):
            raise MeasureError(f"output {name!r}: text in one of the models, numbers in the other")
    pairs = list(zip(original, candidate, strict=True))
    if original[0].dtype.kind in "OSU":
        differing = sum(int(np.sum(one != other)) for one, other in pairs)
        return OutputAccuracy(name, None, None, None, None, sum(one.size for one in original), differing)
    return _numeric(name, pairs)


def _numeric(name: str, pairs: Sequence[tuple[Array, Array]]) -> OutputAccuracy:
    clean = [_comparable(_wide(one), _wide(other)) for one, other in pairs]
    # The angle does not depend on the lengths, while squares of very large or small numbers are out of range.
    scales = _scale(each.one for each in clean), _scale(each.other for each in clean)
    sums = [_sums(each.one / scales[0], each.other / scales[1]) for each in clean]
    return OutputAccuracy(
        name,
        cosine=_cosine(*(math.fsum(column) for column in zip(*sums, strict=True))),
        worst_cosine=min(_cosine(*each) for each in sums),
        max_abs_error=max((_largest(each.one, each.other) for each in clean), default=0.0),
        top1_agreement=_top1(pairs),
        compared_values=sum(each.one.size for each in clean),
        broken_values=sum(each.broken for each in clean),
    )


@dataclass(frozen=True, slots=True)
class _Clean:
    """The values that are numbers in both, and how many are in one alone."""

    one: Array
    other: Array
    broken: int


def _comparable(one: Array, other: Array) -> _Clean:
    finite = np.isfinite(one) & np.isfinite(other)
    same = finite | (one == other) | (np.isnan(one) & np.isnan(other))
    return _Clean(one[finite], other[finite], int(np.sum(~same)))


def _wide(array: Array) -> Array:
    return array.astype(np.float64).reshape(-1)


def _sums(one: Array, other: Array) -> tuple[float, float, float]:
    """The products that the cosine is made of."""
    return float(one @ other), float(one @ one), float(other @ other)


def _cosine(product: float, one: float, other: float) -> float:
    if one == 0 or other == 0:
        return 1.0 if one == other else 0.0
    return max(-1.0, min(1.0, product / math.sqrt(one) / math.sqrt(other)))


def _scale(arrays: Iterable[Array]) -> float:
    return max((float(np.max(np.abs(array), initial=0.0)) for array in arrays), default=0.0) or 1.0


def _largest(one: Array, other: Array) -> float:
    with np.errstate(over="ignore"):
        return float(np.max(np.abs(one - other), initial=0.0))


def _top1(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    if not all(_looks_like_classes(one) for one, _ in pairs):
        return None
    agreeing = rows = 0
    for one, other in pairs:
        # A row with NaN has no class.
        kept = ~(np.isnan(one) | np.isnan(other)).any(axis=1)
        scores, chosen = one[kept], np.argmax(other[kept], axis=1)
        # Of several equal ones any is the right class.
        agreeing += int(np.sum(scores[np.arange(len(scores)), chosen] == scores.max(axis=1)))
        rows += len(scores)
    return agreeing / rows if rows else None


def _looks_like_classes(array: Array) -> bool:
    return (
        array.ndim == 2
        and array.shape[0] > 0
        and 2 <= array.shape[1] <= _CLASSES_MAX
        and array.dtype.kind == "f"
    )
