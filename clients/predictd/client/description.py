"""Models as the daemon describes them, and what can be told from that of a request. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from predictd.client import tensors
from predictd.client.errors import InvalidRequestError, not_loaded

if TYPE_CHECKING:
    from predictd.client.tensors import TensorLike


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        name: As the model names it.
        dtype: Such as `FP32`, `INT64`, `BYTES`.
        shape: Dimensions, -1 where one may vary. Includes the batch dimension of a model that batches.
        optional: An input that may be left out.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits."""
        return len(shape) == len(self.shape) and all(
            wanted in {-1, given} for given, wanted in zip(shape, self.shape, strict=True)
        )

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{self.name} {self.dtype}{list(self.shape)}{' (optional)' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model.

    Attributes:
        version: Its number.
        state: `LOADING`, `READY`, `FAILED` or `UNLOADING`.
        reason: Why it failed, or why its new content did while the old content serves on; else empty.
        engine: The runtime's name; empty until loaded.
        inputs: Empty until loaded.
        outputs: Empty until loaded.
        max_batch_size: Rows that are merged into one run at most; 0 for a model that does not batch.
        labels: Names of this version.
        tuned: Which of its settings were found by tuning, and on which CPU, in words; empty if none was.
    """

    version: int
    state: str
    reason: str
    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    labels: tuple[str, ...]
    tuned: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a model.

    Attributes:
        name: What requests say.
        version: What it means, which may be a version that is not ready or not there.
        set_by: `CONFIGURATION` or `RUN_TIME`.
        next_version: What it will mean once that version is ready; None if it means that already.
    """

    name: str
    version: int
    set_by: str
    next_version: int | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """How requests that name neither version nor label are divided.

    Attributes:
        shares: Percent by version. A version that is not ready leaves its share to the others.
        set_by: `CONFIGURATION` or `RUN_TIME`.
    """

    shares: Mapping[int, int]
    set_by: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that holds for a model.

    Attributes:
        name: As `model.toml` has it.
        value: As text.
        origin: A file and its line, a flag, an environment variable, "default", "plan" for what the daemon worked out
            from the CPUs at hand, or that it was given when the model was loaded.
    """

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, repr=False)
class Model:
    """A model that the daemon serves, or tries to.

    `predict` takes one in place of its name: it then compares the inputs with the signature before it sends them.

    Attributes:
        name: What requests call it.
        versions: Highest first.
        default_version: Answers a request that names neither version nor label, unless there is a split, of which it
            is the largest share; 0 when none is ready.
        labels: By name.
        split: How such requests are divided; None if they are not.
        settings: By name; those of the default version.
    """

    name: str
    versions: tuple[ModelVersion, ...]
    default_version: int
    labels: tuple[Label, ...] = ()
    split: Split | None = None
    settings: tuple[Setting, ...] = ()

    def signature(self, version: int | None = None, label: str | None = None) -> ModelVersion | None:
        """The version that such a request asks, as it was when the model was described; None if it is not loaded."""
        number = self.default_version if version is None else version
        if label is not None:
            number = next((one.version for one in self.labels if one.name == label), 0)
        return next((one for one in self.versions if one.version == number and one.inputs), None)

    def check(
        self, inputs: Mapping[str, TensorLike], *, version: int | None = None, label: str | None = None
    ) -> None:
        """Compare inputs with the signature, as the daemon does. One that is not loaded allows everything.

        Raises:
            InvalidRequestError: They do not fit.
            TypeError: An input is no array of a dtype that predictd knows.
            ValueError: An input is ragged.
        """
        known = self._asked(version, label)
        for number, one in enumerate(known, 1):
            try:
                self._check_signature(one, inputs)
            except InvalidRequestError:
                if number == len(known):
                    raise
            else:
                return

    def _asked(self, version: int | None, label: str | None) -> list[ModelVersion]:
        """Every version that such a request may reach, the likeliest last; none if one of them is not loaded."""
        numbers: set[int | None] = {version}
        if version is None and label is None and self.split is not None:
            numbers = {number for number, percent in self.split.shares.items() if percent}
        by_number = sorted(numbers, key=lambda number: number == self.default_version)
        found = [self.signature(number, label) for number in by_number]
        loaded = [one for one in found if one is not None]
        return loaded if len(loaded) == len(found) else []

    def _check_signature(self, known: ModelVersion, inputs: Mapping[str, TensorLike]) -> None:
        specs = {spec.name: spec for spec in known.inputs}
        for name, value in inputs.items():
            if name not in specs:
                expected = ", ".join(f"'{each}'" for each in specs)
                raise _invalid(f"unexpected input '{name}' for model '{self.name}'; it takes {expected}")
            self._check_input(specs[name], value)
        for spec in known.inputs:
            if spec.name not in inputs and not spec.optional:
                raise _invalid(f"input '{spec.name}' of model '{self.name}' is missing; expected {spec}")

    def _check_input(self, spec: TensorSpec, value: TensorLike) -> None:
        dtype, shape = tensors.kind(spec.name, value)
        what = f"input '{spec.name}' of model '{self.name}' has"
        if dtype != spec.dtype:
            raise _invalid(f"{what} type {dtype}; expected {spec.dtype}")
        if not spec.accepts(shape):
            raise _invalid(f"{what} shape {list(shape)}; expected {list(spec.shape)} (-1: any size)")

    def __repr__(self) -> str:  # type: ignore[explicit-override]
        lines = [f"<Model {self.name!r}, default version {self.default_version or 'none'}"]
        for one in self.versions:
            facts = [
                one.state.lower(),
                one.engine,
                f"batches of {one.max_batch_size}" * bool(one.max_batch_size),
            ]
            lines.append(f"  version {one.version}: {', '.join(filter(None, facts))}")
            lines += [f"    {one.reason}"] * bool(one.reason)
            lines += [f"    in   {spec}" for spec in one.inputs]
            lines += [f"    out  {spec}" for spec in one.outputs]
        lines += [f"  label {label.name}: version {label.version}" for label in self.labels]
        return "\n".join(lines) + ">"


def only_input(model: Model, version: int | None, label: str | None) -> str:
    """What the only input is called of the version that such a request asks.

    Raises:
        UnavailableError: No version is loaded.
        TypeError: There are several inputs.
    """
    # What is wrong with a version that is not loaded the daemon says, by whatever name the input comes.
    known = model.signature(version, label) or next((one for one in model.versions if one.inputs), None)
    if known is None:
        raise not_loaded(model.name)
    names = [spec.name for spec in known.inputs if not spec.optional]
    if len(names) != 1:
        raise TypeError(
            f"model {model.name!r} has {len(names)} inputs ({', '.join(names)}): inputs map names to arrays"
        )
    return names[0]


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, grpc.StatusCode.INVALID_ARGUMENT)
