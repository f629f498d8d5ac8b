"""From what shall be served and what is served to what is to be done: a pure decision, taken anew after each event.

Rules, for each model by itself:

* A wanted version without a lane of its present content is started. One whose present content failed is left alone
  until its content changes: trying again by itself would only fill the log.
* Availability-preserving (the default): a lane that is not wanted any more is retired once what replaces it is ready.
  The same version with new content replaces the old content; otherwise any ready wanted version does. So a load that
  fails leaves the old lane serving.
* Resource-preserving: what is not wanted is retired first, and the new is started when the old is gone.
* Nothing is wanted: everything is retired.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class LaneState(enum.StrEnum):
    """Where a lane stands."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class Content:
    """One version as it is on disk.

    Attributes:
        version: Number.
        fingerprint: Differs when the files or the configuration differ.
    """

    version: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be served of a model.

    Attributes:
        contents: Versions, each once.
        preserve_availability: Load the new before the old is retired; else after.
    """

    contents: tuple[Content, ...]
    preserve_availability: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """A lane as it is."""

    lane: int
    model: str
    content: Content
    state: LaneState


@dataclass(frozen=True, slots=True)
class Start:
    """Load a version."""

    model: str
    content: Content


@dataclass(frozen=True, slots=True)
class Retire:
    """Take a ready lane out of the routes, let it finish, and end it."""

    lane: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give a load up."""

    lane: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the record of a lane that failed."""

    lane: int


Action = Start | Retire | Cancel | Forget


def reconcile(wanted: Mapping[str, Wanted], observed: Iterable[Observed]) -> list[Action]:
    """What to do now. Doing nothing is the answer once everything is as it shall be, or on its way there."""
    lanes: dict[str, list[Observed]] = {}
    for lane in observed:
        lanes.setdefault(lane.model, []).append(lane)
    actions: list[Action] = []
    for model in sorted({*wanted, *lanes}):
        actions += _reconcile_model(model, wanted.get(model, Wanted(())), lanes.get(model, []))
    return actions


def _reconcile_model(model: str, wanted: Wanted, lanes: Sequence[Observed]) -> list[Action]:
    present = {lane.content for lane in lanes if lane.state is not LaneState.UNLOADING}
    missing = [content for content in wanted.contents if content not in present]
    obsolete = [
        lane
        for lane in lanes
        if lane.content not in wanted.contents and lane.state is not LaneState.UNLOADING
    ]
    actions: list[Action] = [Cancel(lane.lane) for lane in obsolete if lane.state is LaneState.LOADING]
    actions += [Forget(lane.lane) for lane in obsolete if lane.state is LaneState.FAILED]
    serving = [lane for lane in obsolete if lane.state is LaneState.READY]
    if wanted.preserve_availability:
        actions += [Retire(lane.lane) for lane in serving if _replaced(lane, wanted, lanes)]
        starting = missing
    else:
        actions += [Retire(lane.lane) for lane in serving]
        going = any(
            lane.content not in wanted.contents or lane.state is LaneState.UNLOADING for lane in lanes
        )
        starting = [] if going else missing
    return actions + [Start(model, content) for content in starting]


def _replaced(lane: Observed, wanted: Wanted, lanes: Sequence[Observed]) -> bool:
    """Whether a ready lane that is not wanted may go."""
    if not wanted.contents:
        return True
    ready = {other.content for other in lanes if other.state is LaneState.READY}
    same_version = [content for content in wanted.contents if content.version == lane.content.version]
    return any(content in ready for content in same_version or wanted.contents)


def default_version(wanted: Wanted, lanes: Iterable[Observed]) -> int | None:
    """The version for requests that name none: the highest wanted one that is ready, else the highest ready one."""
    ready = [lane.content for lane in lanes if lane.state is LaneState.READY]
    chosen = [content.version for content in ready if content in wanted.contents]
    return max(chosen or [content.version for content in ready], default=None)
