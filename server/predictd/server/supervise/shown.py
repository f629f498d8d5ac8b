"""The settings of a model as operators are told of them: each with its value and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import (
    All,
    Latest,
    ModelConfig,
    Origin,
    Specific,
    VersionPolicy,
    Warmup,
)
from predictd.server.config.settings import DEFAULT, Settings
from predictd.server.config.units import format_duration
from predictd.server.control.publication import SettingView

# Each model's settings go to front ends in a message of a bounded size.
_VALUE_CHARACTERS = 200
_PLAN = "plan"
# Labels are shown with what they mean; the outputs that are served are those that are declared.
_HIDDEN = frozenset({"labels", "served_outputs"})
_NAMES = {
    "max_delay_ns": "max_delay",
    "run_timeout_ns": "run_timeout",
    "default_timeout_ns": "default_timeout",
    "default_deadline_ns": "default_deadline",
}


def shown_settings(
    file: ModelConfig, settings: Settings, lane: LaneConfig, instances: int
) -> tuple[SettingView, ...]:
    """All that holds for a model's version, by name.

    Args:
        file: What the model's own configuration says, with what was given when it was loaded.
        settings: The daemon's.
        lane: What came of both.
        instances: Workers of its pool.
    """
    general = {view.name: view for view in _general(settings, lane, instances)}
    own = {
        _NAMES.get(name, name): _view(name, getattr(file, name), _place(origin))
        for name, origin in file.origins.items()
        if name not in _HIDDEN
    }
    # What counts is what came of it: the plan may have less than was asked for.
    effective = {
        name: SettingView(name=name, value=general[name].value, origin=view.origin)
        for name, view in own.items()
        if name in general and name != "swap"
    }
    return tuple(view for _, view in sorted({**general, **own, **effective}.items()))


def _general(settings: Settings, lane: LaneConfig, instances: int) -> Iterator[SettingView]:
    """What holds for every model that says nothing of it."""
    for name, value in (
        ("max_batch_size", lane.max_batch_size),
        ("max_delay_ns", lane.max_delay_ns),
        ("max_queue_size", lane.max_queue_size),
        ("max_queue_bytes", max(rules.max_queue_bytes for rules in lane.queue_rules)),
        ("default_deadline_ns", lane.default_deadline_ns),
        ("max_request_rows", lane.max_request_rows),
        ("run_timeout_ns", lane.run_timeout_ns),
    ):
        yield _view(name, value, _said(settings, _NAMES.get(name, name)))
    for name, asked, value in (
        ("instances", settings.instances, instances),
        ("threads", settings.threads, lane.threads),
    ):
        yield _view(name, value, _PLAN if asked is None else _said(settings, name))
    yield _view("swap", "availability", DEFAULT)


def _view(name: str, value: object, origin: str) -> SettingView:
    text = format_duration(value) if name.endswith("_ns") and isinstance(value, int) else _text(value)
    if len(text) > _VALUE_CHARACTERS:
        text = f"{text[: _VALUE_CHARACTERS - 1]}…"
    return SettingView(name=_NAMES.get(name, name), value=text, origin=origin)


def _said(settings: Settings, key: str) -> str:
    return Path(settings.origin(key)).name


def _place(origin: Origin) -> str:
    """The file's name alone: where the repository lies is nobody's business but the daemon's."""
    return str(Origin(Path(origin.path.name), origin.line))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Latest | All | Specific):
        return _policy(value)
    if isinstance(value, Warmup):
        return value.mode
    if isinstance(value, Mapping):
        return ", ".join(_pair(key, each) for key, each in value.items())
    parts = value if isinstance(value, tuple) else (value,)
    return ", ".join(str(getattr(each, "name", each)) for each in parts)


def _policy(policy: VersionPolicy) -> str:
    if isinstance(policy, Latest):
        return f"latest {policy.count}"
    return "all" if isinstance(policy, All) else "specific " + ", ".join(map(str, policy.versions))


def _pair(key: object, value: object) -> str:
    """What has a text of its own with it; rules of a priority by the priority alone."""
    return f"{key}={value}" if isinstance(value, str | int) else str(key)
