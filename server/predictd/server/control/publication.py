"""What front ends are told of a model: its versions, labels, split and settings."""

from __future__ import annotations

import msgspec

from predictd.server.config.lane import LaneConfig, LaneSignature
from predictd.server.control.message import Message


class LaneView(Message, frozen=True, kw_only=True):
    """One version of a model as frontends show and route it."""

    version: int
    state: str
    lane: int = 0
    pool: int = 0
    reason: str = ""
    instances: int = 0
    config: LaneConfig | None = None
    signature: LaneSignature | None = None


class LabelView(msgspec.Struct, frozen=True, kw_only=True):
    """A label of a model: what it means, where it was set, and what it will mean once that is ready (0: the same)."""

    name: str
    version: int
    set_by: str
    next_version: int = 0


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of a model, its value as text, and where that comes from."""

    name: str
    value: str
    origin: str


class PublishModel(Message, frozen=True, kw_only=True):
    """A model and all its versions, highest first. Replaces what was known of the model.

    `split` has versions and their percentages of the requests that name neither version nor label; empty sends them to
    the default version. `settings` are those of the default version, or of the highest while there is none.
    """

    seq: int
    name: str
    default_version: int
    versions: list[LaneView]
    labels: tuple[LabelView, ...] = ()
    split: tuple[tuple[int, int], ...] = ()
    settings: tuple[SettingView, ...] = ()
