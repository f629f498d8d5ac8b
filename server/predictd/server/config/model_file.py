"""`model.toml`: what a model asks for itself. Whatever it leaves out comes from the daemon's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predictd.server.config.settings import COUNT, DELAY, QUEUE_SIZE, ROWS, read_toml
from predictd.server.config.units import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ENGINE = re.compile(r"[a-z][a-z0-9_-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Short enough for a process title, and without characters that the names of other pools are made with.
_POOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """The content of a model.toml; None where it says nothing.

    Attributes:
        engine: Name in the engine registry, or "package.module:function".
        pool: Name of the pool of workers that this model shares with others that name it.
        max_batch_size: Rows of several requests merged into one run at most.
        max_delay_ns: How long a batch may wait to fill.
        max_queue_size: Requests that may wait.
        instances: Workers of the model's pool.
        threads: Threads of one run.
        parameters: Settings of the engine.
    """

    engine: str | None = None
    pool: str | None = None
    max_batch_size: int | None = None
    max_delay_ns: int | None = None
    max_queue_size: int | None = None
    instances: int | None = None
    threads: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def custom_engine(self) -> bool:
        """The engine is somebody's own function, so the model need not be an .onnx file."""
        return self.engine is not None and ":" in self.engine


def read_model_file(path: Path) -> ModelFile:
    """Read a model.toml.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    values = read_toml(path, _KINDS)
    return ModelFile(**{_FIELDS.get(key, key): value for key, value in values.items()})


def _matching(pattern: re.Pattern[str], expected: str) -> Kind[str]:
    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {expected}")
        return value

    return Kind("NAME", expected, (str,), read, str)


def _read_parameters(table: Mapping[str, object]) -> dict[str, str]:
    return {key: _parameter(key, value) for key, value in table.items()}


def _parameter(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{key} must be a string, a number or a boolean")


_KINDS: dict[str, Kind[Any]] = {
    "engine": _matching(_ENGINE, 'an engine\'s name or "package.module:function"'),
    "pool": _matching(_POOL, "a pool name: letters, digits, '_', '.' and '-', at most 64"),
    "max_batch_size": ROWS,
    "max_delay": DELAY,
    "max_queue_size": QUEUE_SIZE,
    "instances": COUNT,
    "threads": COUNT,
    "parameters": Kind("TABLE", "a table", (dict,), _read_parameters, str),
}
_FIELDS = {"max_delay": "max_delay_ns"}
