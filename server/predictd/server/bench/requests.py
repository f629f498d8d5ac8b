"""The requests that the load consists of: recorded ones or random numbers, for one model or many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from predictd.engines.api import Signature
from predictd.server.bench.access import PLAIN, Access
from predictd.server.bench.dialects import dialect
from predictd.server.bench.encoding import encode
from predictd.server.bench.messages import Payload
from predictd.server.bench.signatures import Server
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.inputs import MakeUp, Sample, made_up, read_samples

# So many distinct ones of each model, but not more than so many bytes.
_RANDOM_MAX = 16
_RANDOM_BYTES_MAX = 64 * 2**20
_REMEDY = "give its size, such as --shape {name}:{shape}, or requests with --inputs"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to send.

    Attributes:
        target: Where the server listens.
        api: One of `dialects.APIS`.
        models: Asked in turns.
        rows: Of each random request to a model that batches.
        inputs: A file or folder of recorded ones; of several models a folder with a folder or file for each.
        make_up: What is said of random ones.
        access: How the server is reached.
    """

    target: str
    api: str
    models: tuple[str, ...]
    rows: int = 1
    inputs: Path | None = None
    make_up: MakeUp = field(default_factory=MakeUp)
    access: Access = PLAIN


def prepare(wanted: Wanted, *, streams: bool) -> Payload:
    """Ask the server what its models take, make requests, and send one to each.

    Raises:
        MeasureError: One is refused, or cannot be made.
        ValueError: The API has no streams, and they are wanted.
    """
    dialect(wanted.api, streams=streams)
    server = Server(wanted.target, wanted.api, wanted.access)
    try:
        signatures = [server.signature(model) for model in wanted.models]
        _check_names(wanted.make_up, signatures)
        made = [_bodies(wanted, *each) for each in zip(wanted.models, signatures, strict=True)]
        path = dialect(wanted.api, streams=False).path
        for model, bodies in zip(wanted.models, made, strict=True):
            server.try_once(model, path, bodies[0])
    finally:
        server.close()
    turns = list(in_turns(made))
    return Payload([body for _, body in turns], [model for model, _ in turns], len(made))


def in_turns(made: Sequence[Sequence[bytes]]) -> Iterator[tuple[int, bytes]]:
    """One request of each model after the other, until each was there: those with fewer again from their first."""
    for number in range(max(map(len, made))):
        for model, bodies in enumerate(made):
            yield model, bodies[number % len(bodies)]


def _check_names(make_up: MakeUp, signatures: Sequence[Signature]) -> None:
    names = {spec.name for signature in signatures for spec in signature.inputs}
    for name in (*make_up.shapes, *make_up.ranges):
        if name not in names:
            raise MeasureError(f"no model has an input {name!r}; there are {', '.join(sorted(names))}")


def _bodies(wanted: Wanted, model: str, signature: Signature) -> list[bytes]:
    samples = _samples(wanted, model, signature)
    return [encode(wanted.api, model, signature, sample.arrays) for sample in samples]


def _samples(wanted: Wanted, model: str, signature: Signature) -> Sequence[Sample]:
    if wanted.inputs is not None:
        return read_samples(_recorded(wanted.inputs, model, several=len(wanted.models) > 1), signature)
    names = {spec.name for spec in signature.inputs}
    mine = MakeUp(
        {name: shape for name, shape in wanted.make_up.shapes.items() if name in names},
        {name: values for name, values in wanted.make_up.ranges.items() if name in names},
    )
    samples: list[Sample] = []
    for number in itertools.count():
        sample = made_up(signature, wanted.rows, mine, remedy=_REMEDY, number=number)
        samples.append(sample)
        size_bytes = sum(array.nbytes for array in sample.arrays if array is not None)
        if len(samples) == _RANDOM_MAX or size_bytes * (len(samples) + 1) > _RANDOM_BYTES_MAX:
            break
    return samples


def _recorded(place: Path, model: str, *, several: bool) -> Path:
    if not several:
        return place
    for candidate in (place / model, place / f"{model}.npz", place / f"{model}.npy"):
        if candidate.exists():
            return candidate
    raise MeasureError(f"{place}: neither a folder {model} nor {model}.npz nor {model}.npy in it")
