"""How a request that names no version number finds one: labels, and the split of the default. Pure.

A label means its version once that is ready; until then it means what it meant before, so that neither a new
configuration nor a label set ahead of its version ever turns a caller away. The split divides requests that name
nothing among versions; one that is not ready leaves its share to the others. What was set at run time goes before what
the model's configuration says.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from predictd.server.config.model_config import check_label

READY = "READY"
LABELS_MAX = 100
SHARES_MAX = 16
ALL_PERCENT = 100

Refusal = Literal["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"]


class TrafficError(Exception):
    """A label or a split that cannot be set.

    Attributes:
        status: The kind of refusal, by the name of gRPC's status.
    """

    def __init__(self, status: Refusal, message: str) -> None:
        super().__init__(message)
        self.status = status


class SetBy(enum.StrEnum):
    """Where a setting came from."""

    CONFIGURATION = "configuration"
    RUN_TIME = "run time"


@dataclass(frozen=True, slots=True)
class Label:
    """A name of a version.

    Attributes:
        name: What requests say.
        version: What it means now, which may be a version that is not ready or not there.
        set_by: Where it came from.
        next_version: What it will mean once that version is ready; 0 if it means that already.
    """

    name: str
    version: int
    set_by: SetBy
    next_version: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was set at run time for one model.

    Attributes:
        labels: Versions by label.
        split: Percent of the default's requests by version; empty for the highest version that is ready.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    split: Mapping[int, int] = field(default_factory=dict)

    @property
    def versions(self) -> set[int]:
        """All that are named."""
        return {*self.labels.values(), *self.split}


@dataclass(frozen=True, slots=True)
class Known:
    """A model as it is.

    Attributes:
        name: For messages.
        states: Of its versions; none if there is no such model.
        configured: The labels of its configuration.
    """

    name: str
    states: Mapping[int, str]
    configured: Mapping[str, int]


def labels_now(
    known: Known, traffic: Traffic, before: Mapping[str, int]
) -> tuple[tuple[Label, ...], dict[str, int]]:
    """What the labels of a model mean now.

    Args:
        known: The model.
        traffic: What was set at run time.
        before: What labels meant when they last meant a version that was ready.

    Returns:
        The labels by name, and `before` for the next time.
    """
    labels: list[Label] = []
    meant: dict[str, int] = {}
    for name, version in sorted({**known.configured, **traffic.labels}.items()):
        set_by = SetBy.RUN_TIME if name in traffic.labels else SetBy.CONFIGURATION
        old = before.get(name, version)
        waits = known.states.get(version) != READY and known.states.get(old) == READY
        labels.append(Label(name, old if waits else version, set_by, version if waits else 0))
        meant[name] = old if known.states.get(version) != READY else version
    return tuple(labels), meant


def default_version(split: Mapping[int, int], ready: Collection[int]) -> int:
    """The version that stands for the default: the one with the largest share, else the highest. 0: none is ready."""
    shares = [(percent, version) for version, percent in split.items() if version in ready]
    return max(shares)[1] if shares else max(ready, default=0)


def set_label(known: Known, traffic: Traffic, label: str, version: int, *, allow_unready: bool) -> Traffic:
    """Give a version a name.

    Raises:
        TrafficError: It cannot have it.
    """
    check_shape(label)
    _check_version(known, version, allow_unready=allow_unready)
    labels = {**traffic.labels, label: version}
    if len(labels) > LABELS_MAX:
        raise TrafficError(
            "FAILED_PRECONDITION",
            f"model '{known.name}' has {LABELS_MAX} labels, which is the most: remove one",
        )
    return replace(traffic, labels=labels)


def replace_labels(
    known: Known, traffic: Traffic, labels: Mapping[str, int], *, allow_unready: bool
) -> Traffic:
    """Make labels all that a model has of those set at run time, by TensorFlow Serving's rules.

    Args:
        known: The model.
        traffic: What was set before.
        labels: Versions by label.
        allow_unready: A label that means no other version now may be given to one that is not ready.

    Raises:
        TrafficError: They cannot be set so.
    """
    means = {**known.configured, **traffic.labels}
    for label, version in labels.items():
        check_shape(label)
        if known.states.get(version) == READY:
            continue
        if version < 1:
            raise TrafficError("INVALID_ARGUMENT", f"label '{label}': there is no version {version}")
        if not allow_unready or means.get(label, version) != version:
            raise TrafficError(
                "FAILED_PRECONDITION",
                f"label '{label}' cannot be given to version {version} of model '{known.name}', which is not "
                "currently available for inference",
            )
    if len(labels) > LABELS_MAX:
        raise TrafficError("FAILED_PRECONDITION", f"model '{known.name}' may have {LABELS_MAX} labels")
    return replace(traffic, labels=dict(labels))


def remove_label(known: Known, traffic: Traffic, label: str) -> Traffic:
    """Take back what was set at run time; what the configuration says of the label holds again.

    Raises:
        TrafficError: There is no such label, or only the configuration has it.
    """
    if label not in traffic.labels:
        _check_model(known)
        if label in known.configured:
            raise TrafficError(
                "FAILED_PRECONDITION",
                f"label '{label}' of model '{known.name}' is set by its configuration: remove it there",
            )
        raise TrafficError("NOT_FOUND", f"model '{known.name}' has no label '{label}'")
    return replace(traffic, labels={name: v for name, v in traffic.labels.items() if name != label})


def set_split(
    known: Known, traffic: Traffic, shares: Sequence[tuple[int, int]], *, allow_unready: bool
) -> Traffic:
    """Divide the default's requests; no shares at all send them to the highest version that is ready again.

    Raises:
        TrafficError: They cannot be divided so.
    """
    check_shares(shares)
    if not traffic.split:
        _check_model(known)
    for version, _ in shares:
        _check_version(known, version, allow_unready=allow_unready)
    return replace(traffic, split=dict(shares))


def check_shape(label: str) -> None:
    """Raise TrafficError unless a version can be called this."""
    try:
        check_label(label)
    except ValueError as error:
        raise TrafficError("INVALID_ARGUMENT", str(error)) from None


def check_shares(shares: Sequence[tuple[int, int]]) -> None:
    """Raise TrafficError unless the shares are a whole, or none at all."""
    if len(shares) > SHARES_MAX:
        raise TrafficError(
            "INVALID_ARGUMENT", f"a split has at most {SHARES_MAX} versions, not {len(shares)}"
        )
    if len({version for version, _ in shares}) != len(shares):
        raise TrafficError("INVALID_ARGUMENT", "the split names a version twice")
    for version, percent in shares:
        if not 1 <= percent <= ALL_PERCENT:
            raise TrafficError(
                "INVALID_ARGUMENT",
                f"version {version} cannot have {percent}%: give 1 to {ALL_PERCENT}, or leave it out",
            )
    total = sum(percent for _, percent in shares)
    if shares and total != ALL_PERCENT:
        raise TrafficError("INVALID_ARGUMENT", f"the shares make {total}%, not {ALL_PERCENT}%")


def without_effect(name: str, traffic: Traffic, versions: Collection[int]) -> list[str]:
    """A line for each thing that was set at run time and names a version that is not there."""
    lines = [
        f"label '{label}' of model '{name}' was set at run time to version {version}, which is not there"
        for label, version in sorted(traffic.labels.items())
        if version not in versions
    ]
    lines += [
        f"the split of model '{name}' that was set at run time names version {version}, which is not there"
        for version in sorted(traffic.split)
        if version not in versions
    ]
    return [f"{line}: it has no effect until it is" for line in lines]


def _check_model(known: Known) -> None:
    if not known.states:
        raise TrafficError("NOT_FOUND", f"model '{known.name}' is not known")


def _check_version(known: Known, version: int, *, allow_unready: bool) -> None:
    _check_model(known)
    state = known.states.get(version)
    if state is None:
        there = ", ".join(str(number) for number in sorted(known.states, reverse=True))
        raise TrafficError("NOT_FOUND", f"model '{known.name}' has no version {version} (versions: {there})")
    if state != READY and not allow_unready:
        raise TrafficError(
            "FAILED_PRECONDITION",
            f"version {version} of model '{known.name}' is {state}: wait until it is {READY}, "
            "or say that it may be unready",
        )
