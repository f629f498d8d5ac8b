"""Two models that are loaded at the same time and given the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictd.engines.api import Signature, TensorSpec
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.engines import Engines
from predictd.server.measure.inputs import (
    FLOATS,
    MakeUp,
    Sample,
    batch,
    converted,
    made_up,
    read_samples,
    sample_of,
)
from predictd.server.optimize.accuracy import Outputs

if TYPE_CHECKING:
    import numpy.typing as npt

_MADE_UP_SAMPLES = 16
_REMEDY = "give real inputs"


@dataclass(frozen=True, slots=True)
class Pair:
    """The original and the candidate."""

    original: Engines
    candidate: Engines

    @property
    def sides(self) -> tuple[Engines, Engines]:
        """Both."""
        return self.original, self.candidate

    @property
    def batches(self) -> bool:
        """Both take batches of any size."""
        return all(side.signature.batches for side in self.sides)

    @property
    def max_rows(self) -> int | None:
        """The most rows that both take; None without a limit."""
        return min(
            (side.signature.max_rows for side in self.sides if side.signature.max_rows is not None),
            default=None,
        )

    def take(self, samples: Sequence[Sample], rows: int) -> None:
        """Give both a batch of so many rows; where one does not batch, the first sample."""
        signature = self.original.signature
        whole = samples[0]
        if self.batches:
            whole = Sample(f"a batch of {rows} rows", batch(samples, rows, signature))
        self._take(whole)

    def outputs(self, samples: Sequence[Sample]) -> tuple[list[Outputs], list[Outputs]]:
        """What both answer to each sample."""
        answers: tuple[list[Outputs], list[Outputs]] = ([], [])
        for sample in samples:
            self._take(sample)
            for side, answered in zip(self.sides, answers, strict=True):
                answered.append(side.answer())
        return answers

    def _take(self, sample: Sample) -> None:
        self.original.take(sample.arrays)
        self.candidate.take(translated(sample, self.original.signature, self.candidate.signature).arrays)


def translated(sample: Sample, own: Signature, wanted: Signature) -> Sample:
    """The inputs of one model for another: by name, floating-point numbers in the type that it takes.

    Raises:
        MeasureError: The other model takes something else.
    """
    dtypes = {spec.name: spec.dtype for spec in wanted.inputs}
    arrays = {
        spec.name: converted(array, spec.dtype, dtypes.get(spec.name, spec.dtype))
        for spec, array in zip(own.inputs, sample.arrays, strict=True)
        if array is not None
    }
    return sample_of(f"{sample.place}, for the candidate", arrays, wanted)


def check_alike(original: Signature, candidate: Signature) -> None:
    """Raise MeasureError where no inputs suit both models, or where their outputs have other names."""
    own, other = ({spec.name: spec for spec in each.inputs} for each in (original, candidate))
    for name in own | other:
        mine, theirs = own.get(name), other.get(name)
        if mine is not None and theirs is not None:
            if not _alike(mine, theirs):
                raise MeasureError(
                    f"the models cannot be compared: input {name!r} is {_typed(mine)} for the original, "
                    f"{_typed(theirs)} for the candidate"
                )
        elif (mine is not None and not mine.optional) or (theirs is not None and not theirs.optional):
            raise _different("inputs", own, other)
    own, other = ({spec.name: spec for spec in each.outputs} for each in (original, candidate))
    if own.keys() != other.keys():
        raise _different("outputs", own, other)


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    dtypes = {one.dtype, other.dtype}
    return (
        (len(dtypes) == 1 or dtypes <= FLOATS)
        and len(one.shape) == len(other.shape)
        and all(
            mine == theirs or -1 in (mine, theirs)
            for mine, theirs in zip(one.shape, other.shape, strict=True)
        )
    )


def _different(what: str, own: Iterable[str], other: Iterable[str]) -> MeasureError:
    return MeasureError(
        f"the models cannot be compared: the original has the {what} {', '.join(map(repr, own)) or 'none'}, "
        f"the candidate {', '.join(map(repr, other)) or 'none'}"
    )


def _typed(spec: TensorSpec) -> str:
    return f"{spec.dtype.name}[{', '.join(map(str, spec.shape))}]"


def samples_of(
    pair: Pair, inputs: Sequence[Mapping[str, npt.NDArray[Any]]] | Path | None, notes: list[str]
) -> list[Sample]:
    """The samples for the original, whichever way they are given.

    Raises:
        MeasureError: They are not what the original takes, or there is none.
    """
    signature = pair.original.signature
    if isinstance(inputs, Path):
        return read_samples(inputs, signature)
    if inputs is None:
        notes.append("the inputs were made up: random numbers say little about accuracy on real data")
        try:
            return [
                made_up(signature, 1, MakeUp(), remedy=_REMEDY, number=number)
                for number in range(_MADE_UP_SAMPLES)
            ]
        except MeasureError as error:
            raise MeasureError(f"{pair.original.label}: {error}") from error
    if not inputs:
        raise MeasureError("there are no inputs to compare outputs on")
    return [sample_of(f"sample {number}", arrays, signature) for number, arrays in enumerate(inputs, 1)]
