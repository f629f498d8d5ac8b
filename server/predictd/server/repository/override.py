"""The configuration that a command to load a model may carry: JSON with the fields of Triton's ModelConfig.

It lies over the model's own files; what it does not say stays as they say. Fields that predictd cannot take from
here are refused by name: a client that sends one counts on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from predictd.server.config.model_config import All, Latest, ModelConfig, Origin, Specific, VersionPolicy
from predictd.server.config.units import suggestion
from predictd.server.errors import InvalidRequestError

# What `predictd check` and `predictd models` say of where a setting comes from.
ORIGIN = Origin(Path("given when it was loaded"))

_MOST_ROWS = 2**31 - 1
_MOST_INSTANCES = 1024
_LONGEST_DELAY_US = 60 * 10**6
_LARGEST = 2**63 - 1


def read_override(text: str, model: str) -> ModelConfig:
    """Read what a command says of a model's configuration; nothing for an empty text.

    Raises:
        InvalidRequestError: It is not JSON, or a field is unknown here or has a wrong value.
    """
    if not text:
        return ModelConfig()
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the config is not JSON") from None
    values: dict[str, Any] = {}
    for name, value in _table("config", fields).items():
        if name == "name":
            if value != model:
                raise InvalidRequestError(f"config: name is {value!r}, but the model is called {model!r}")
        elif name in _READERS:
            values.update(_READERS[name](value))
        else:
            raise InvalidRequestError(
                f"config: {name!r} cannot be overridden; {', '.join(_READERS)} can{suggestion(name, _READERS)}"
            )
    return ModelConfig(**values, origins=dict.fromkeys(values, ORIGIN))


def _rows(value: object) -> dict[str, object]:
    # 0 is Triton's word for a model that takes each request by itself.
    return {"max_batch_size": max(1, _whole("max_batch_size", value, 0, _MOST_ROWS))}


def _batching(value: object) -> dict[str, object]:
    said = _only("dynamic_batching", value, "max_queue_delay_microseconds")
    if not said:
        return {}
    ((name, delay),) = said.items()
    return {"max_delay_ns": 1000 * _whole(f"dynamic_batching.{name}", delay, 0, _LONGEST_DELAY_US)}


def _instances(value: object) -> dict[str, object]:
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("config: instance_group must be an array of groups, at least one")
    place = "instance_group.count"
    groups = [_only("instance_group", group, "count", "kind") for group in value]
    for group in groups:
        if group.get("kind", "KIND_AUTO") not in ("KIND_AUTO", "KIND_CPU"):
            raise InvalidRequestError(f"config: instance_group.kind cannot be {group['kind']!r} here")
    count = sum(_whole(place, group.get("count", 1), 1, _MOST_INSTANCES) for group in groups)
    return {"instances": _whole(place, count, 1, _MOST_INSTANCES)}


def _policy(value: object) -> dict[str, object]:
    choices = _only("version_policy", value, "latest", "all", "specific")
    if len(choices) != 1:
        raise InvalidRequestError("config: version_policy takes one of latest, all, specific")
    ((choice, said),) = choices.items()
    return {"version_policy": _POLICIES[choice](f"version_policy.{choice}", said)}


def _latest(place: str, value: object) -> VersionPolicy:
    said = _only(place, value, "num_versions")
    return Latest(max(1, _whole(f"{place}.num_versions", said.get("num_versions", 1), 0, _LARGEST)))


def _all(place: str, value: object) -> VersionPolicy:
    _only(place, value)
    return All()


def _specific(place: str, value: object) -> VersionPolicy:
    versions = _only(place, value, "versions").get("versions")
    if not isinstance(versions, list) or not versions:
        raise InvalidRequestError(f"config: {place}.versions must be an array with at least one version")
    numbers = {_whole(f"{place}.versions", version, 1, _LARGEST) for version in versions}
    return Specific(tuple(sorted(numbers)))


_POLICIES: Mapping[str, Callable[[str, object], VersionPolicy]] = {
    "latest": _latest,
    "all": _all,
    "specific": _specific,
}
_READERS: Mapping[str, Callable[[object], dict[str, object]]] = {
    "max_batch_size": _rows,
    "dynamic_batching": _batching,
    "instance_group": _instances,
    "version_policy": _policy,
}


def _table(place: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{place} must be an object")
    return value


def _only(place: str, value: object, *known: str) -> dict[str, object]:
    table = _table(f"config: {place}", value)
    for name in table:
        if name not in known:
            raise InvalidRequestError(f"config: {place}.{name} cannot be overridden{suggestion(name, known)}")
    return table


def _whole(place: str, value: object, low: int, high: int) -> int:
    # In JSON protobuf writes 64-bit numbers as strings.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequestError(f"config: {place} must be a whole number from {low} to {high}")
    return value
