"""`model.toml`: what a model asks for itself, in predictd's own words."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from predictd.server.config.devices import DEVICES
from predictd.server.config.file_names import check_file_name
from predictd.server.config.model_config import (
    DTYPES,
    MOST_PRIORITY_LEVELS,
    All,
    Latest,
    ModelConfig,
    ModelConfigError,
    Notice,
    Origin,
    QueuePolicy,
    Reading,
    Specific,
    TensorConfig,
    VersionPolicy,
    Warmup,
    check_label,
    contradictions,
)
from predictd.server.config.shared_kinds import (
    ALLOCATOR,
    COUNT,
    DEADLINE,
    DELAY,
    QUEUE_BYTES,
    QUEUE_SIZE,
    ROWS,
    RUN_TIMEOUT,
    WHILE_BUILDING,
)
from predictd.server.config.small_file import load_toml, read_small_file
from predictd.server.config.tuned import TUNABLE, Here, Tuned, TunedValue, key_of
from predictd.server.config.units import LARGEST, Kind, boolean, choice, duration, integer, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

_ENGINE = re.compile(r"[a-z][a-z0-9_-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Short enough for a process title, and without characters that the names of other pools are made with.
_POOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOUR_NS = 3600 * 10**9
_SYNTAX_ERROR_PLACE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)| \(at end of document\)")
# Keys that are called otherwise in ModelConfig.
_FIELDS = {
    "max_delay": "max_delay_ns",
    "run_timeout": "run_timeout_ns",
    "default_timeout": "default_timeout_ns",
    "default_deadline": "default_deadline_ns",
}


def read_model_file(path: Path) -> Reading:
    """Read a model.toml.

    Raises:
        ModelConfigError: The file cannot be read or is not TOML.
    """
    text, table = _load(path)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    notices: list[Notice] = []
    for key, value in table.items():
        line = _line_of(text, key)
        kind = _KINDS.get(key)
        if kind is None:
            notices.append(Notice(line, key, f"unknown key {key!r}{suggestion(key, _KINDS)}"))
            continue
        try:
            values[_FIELDS.get(key, key)] = kind.read_toml(value)
        except ValueError as error:
            notices.append(Notice(line, key, f"{key}: {error}"))
        else:
            origins[_FIELDS.get(key, key)] = Origin(path, line)
    config = _with_paths(ModelConfig(**values, origins=origins), path.parent)
    for notice in contradictions(config):
        message = f"{notice.field}: {notice.message}"
        notices.append(replace(notice, line=_line_of(text, notice.field), message=message))
    return Reading(config, tuple(notices))


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = read_small_file(path).decode()
    except OSError as error:
        raise ModelConfigError(path, None, str(error.strerror).lower()) from error
    except UnicodeDecodeError as error:
        raise ModelConfigError(path, None, "not TOML: not UTF-8 text") from error
    except ValueError as error:
        raise ModelConfigError(path, None, str(error)) from error
    try:
        return text, load_toml(text)
    except ValueError as error:
        match = _SYNTAX_ERROR_PLACE.search(str(error))
        line = int(match[1]) if match and match[1] else len(text.splitlines()) or 1
        raise ModelConfigError(path, line, f"not TOML: {_SYNTAX_ERROR_PLACE.sub('', str(error))}") from error


def _line_of(text: str, key: str) -> int | None:
    """The line of a key at the top level; the TOML reader does not tell."""
    name = re.escape(key)
    pattern = re.compile(rf"\s*(?:\[\s*)?(?:{name}|\"{name}\"|'{name}')\s*[=.\]]")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)


def _with_paths(config: ModelConfig, folder: Path) -> ModelConfig:
    warmup = config.warmup
    if warmup is not None and warmup.file is not None:
        config = replace(config, warmup=replace(warmup, file=folder / warmup.file))
    outputs = (
        replace(output, labels_file=folder / output.labels_file) if output.labels_file else output
        for output in config.outputs
    )
    return replace(config, outputs=tuple(outputs))


def _matching(pattern: re.Pattern[str], expected: str) -> Kind[str]:
    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {expected}")
        return value

    return Kind("NAME", expected, (str,), read, str)


def _table(read: Callable[[Mapping[str, Any]], T], *others: type, expected: str = "a table") -> Kind[T]:
    return Kind("TABLE", expected, (dict, *others), read, str)


def _read_keys(table: Mapping[str, object], kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(f"unknown key {key!r}{suggestion(key, kinds)}")
        try:
            values[key] = kinds[key].read_toml(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return values


def _read_parameters(table: Mapping[str, object]) -> dict[str, str]:
    return {key: _parameter(key, value) for key, value in table.items()}


def _parameter(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{key} must be a string, a number or a boolean")


def _read_sizes(values: Iterable[object]) -> tuple[int, ...]:
    return tuple(sorted({ROWS.read_toml(value) for value in values}))


def _read_versions(values: Iterable[object]) -> tuple[int, ...]:
    versions = tuple(sorted({_VERSION.read_toml(value) for value in values}))
    if not versions:
        raise ValueError("an empty array serves no version")
    return versions


def _read_policy(value: str | Mapping[str, object]) -> VersionPolicy:
    if value == "all":
        return All()
    if isinstance(value, str) or len(value) != 1:
        raise ValueError(f'write "all", {{latest = N}} or {{specific = [N, ...]}}, not {value!r}')
    policy = _read_keys(value, _POLICIES)
    return Latest(policy["latest"]) if "latest" in policy else Specific(policy["specific"])


def _read_labels(table: Mapping[str, object]) -> dict[str, int]:
    for label in table:
        check_label(label)
    return _read_keys(table, dict.fromkeys(table, _VERSION))


def _read_warmup(table: Mapping[str, object]) -> Warmup:
    values = _read_keys(table, _WARMUP)
    if len(values) != 1:
        raise ValueError("set either mode or file")
    return Warmup(mode="file", file=values["file"]) if "file" in values else Warmup(mode=values["mode"])


def _read_queues(table: Mapping[str, object]) -> dict[int, QueuePolicy]:
    levels = {str(level): level for level in range(1, MOST_PRIORITY_LEVELS + 1)}
    policies = _read_keys(table, dict.fromkeys(levels, _table(lambda queue: _read_keys(queue, _QUEUE))))
    return {
        levels[level]: QueuePolicy(**{_FIELDS.get(key, key): value for key, value in policy.items()})
        for level, policy in policies.items()
    }


def _read_tensors(kinds: Mapping[str, Kind[Any]], table: Mapping[str, object]) -> tuple[TensorConfig, ...]:
    tensors = _read_keys(table, dict.fromkeys(table, _table(lambda tensor: _read_keys(tensor, kinds))))
    return tuple(TensorConfig(name=name, **values) for name, values in tensors.items())


def _dimension(size: int) -> int:
    if size != -1 and not 1 <= size < 2**31:
        raise ValueError(f"{size} is no dimension: write a number from 1, or -1 if it varies")
    return size


def _read_shape(values: Iterable[object]) -> tuple[int, ...]:
    return tuple(_DIMENSION.read_toml(value) for value in values)


def read_tuned(table: Mapping[str, object]) -> Tuned:
    """Read a result of tuning, as `predictd.server.config.tuned.table_of` writes it.

    Raises:
        ValueError: A key is missing, unknown, or has a wrong value; one line.
    """
    values = _read_keys(table, _TUNED)
    for key in ("cpu", "cpus"):
        if key not in values:
            raise ValueError(f"{key} is missing")
    here = Here(values.pop("cpu"), values.pop("cpus"))
    return Tuned(here, {_FIELDS.get(key, key): value for key, value in values.items()})


def read_setting(attribute: str, text: str) -> TunedValue:
    """Read a tunable setting, by its attribute of ModelConfig, as it is written on a command line.

    Raises:
        ValueError: It has no such value.
    """
    value: TunedValue = _KINDS[key_of(attribute)].read(text)
    return value


def _path(value: str) -> Path:
    check_file_name(value)
    return Path(value)


_FILE: Kind[Path] = Kind("FILE", "a path", (str,), _path, str)
_VERSION = integer(1, LARGEST)
_POLICIES: dict[str, Kind[Any]] = {
    "latest": integer(1, 2**31 - 1),
    "specific": Kind("VERSIONS", "an array of versions", (list,), _read_versions, str),
}
_WARMUP: dict[str, Kind[Any]] = {"mode": choice("zeros", "random", "none"), "file": _FILE}
_DIMENSION: Kind[int] = Kind("N", "a whole number", (int,), _dimension, str)
_TENSOR: dict[str, Kind[Any]] = {
    "dtype": choice(*DTYPES),
    "shape": Kind("SHAPE", "an array of dimensions, -1 where one may vary", (list,), _read_shape, str),
}
_OUTPUT: dict[str, Kind[Any]] = {**_TENSOR, "labels_file": _FILE}
_QUEUE: dict[str, Kind[Any]] = {
    "max_queue_size": QUEUE_SIZE,
    "max_queue_bytes": QUEUE_BYTES,
    "default_timeout": duration(1, 24 * _HOUR_NS),
    "allow_timeout_override": boolean(),
    "timeout_action": choice("reject", "delay"),
}
_KINDS: dict[str, Kind[Any]] = {
    "engine": _matching(_ENGINE, 'an engine\'s name or "package.module:function"'),
    "while_building": WHILE_BUILDING,
    "pool": _matching(_POOL, "a pool name: letters, digits, '_', '.' and '-', at most 64"),
    "max_batch_size": ROWS,
    "max_delay": DELAY,
    "preferred_batch_sizes": Kind("SIZES", "an array of whole numbers", (list,), _read_sizes, str),
    "instances": COUNT,
    "threads": COUNT,
    "spin": boolean(),
    "cpu_weight": integer(1, 1000),
    "allocator": ALLOCATOR,
    "openmp": choice("libgomp", "libiomp5"),
    "device": _matching(DEVICES, 'a device, such as "cpu" or "0", or several, such as "0,1"'),
    "run_timeout": RUN_TIMEOUT,
    **_QUEUE,
    "default_deadline": DEADLINE,
    "priority_levels": integer(1, MOST_PRIORITY_LEVELS),
    "default_priority": integer(1, MOST_PRIORITY_LEVELS),
    "priority_queues": _table(_read_queues),
    "swap": choice("availability", "resource"),
    "version_policy": _table(_read_policy, str, expected='"all" or a table'),
    "labels": _table(_read_labels),
    "warmup": _table(_read_warmup),
    "inputs": _table(partial(_read_tensors, _TENSOR)),
    "outputs": _table(partial(_read_tensors, _OUTPUT)),
    "parameters": _table(_read_parameters),
    "tuned": _table(read_tuned),
}
_TUNED: dict[str, Kind[Any]] = {
    "cpu": Kind("CPU", "a CPU's fingerprint", (str,), str, str),
    "cpus": integer(1, 2**16),
    **{key_of(name): _KINDS[key_of(name)] for name in TUNABLE},
}
