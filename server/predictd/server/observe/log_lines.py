"""From events to lines: text for a person at a terminal, else JSON.

No text that an event carries can end its line or drive the terminal: control characters are escaped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias

from structlog import dev, processors

from predictd.server.observe.escape import escape_controls
from predictd.server.observe.log_event import LogEvent

Render: TypeAlias = Callable[[LogEvent, str, int], str]

_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_PLAIN: Final = "\x1b[0m"
# ConsoleRenderer writes these as they are.
_RESERVED: Final = frozenset({"exception", "stack", "exc_info"})


def render_for(stream: TextIO) -> Render:
    """What makes lines for a stream."""
    if stream.isatty():
        return human(colours="NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb")
    return machine


_json = processors.JSONRenderer(serializer=json.dumps)


def machine(event: LogEvent, role: str, pid: int) -> str:
    """One JSON object, in ASCII."""
    return str(_json(None, "", _event_dict(event, role, pid) | event.blocks))


def human(*, colours: bool) -> Render:
    """Time, level, process, message and fields; blocks follow, indented."""
    columns = [
        dev.Column("time", _column(None)),
        dev.Column("level", dev.KeyValueColumnFormatter(None, "", "", value_repr=str)),
        dev.Column("role", _column(None)),
        dev.Column("message", _column(None)),
        dev.Column("", _column("")),
    ]
    render = dev.ConsoleRenderer(columns=columns, sort_keys=False)

    def line(event: LogEvent, role: str, pid: int) -> str:
        known = _event_dict(event, f"{role}[{pid}]", pid)
        known["level"] = _level(event.level, colours=colours)
        for name in ("pid", "logger"):
            del known[name]
        first = str(render(None, "", {escape_controls(key): value for key, value in known.items()}))
        return "\n".join((first, *_indented(event)))

    return line


def _column(key_style: str | None) -> dev.KeyValueColumnFormatter:
    return dev.KeyValueColumnFormatter(
        key_style, "", "", value_repr=lambda value: escape_controls(str(value))
    )


def _level(level: str, *, colours: bool) -> str:
    text = f"{level.upper():<7}"
    return f"{_COLOURS[level]}{text}{_PLAIN}" if colours else text


def _event_dict(event: LogEvent, role: str, pid: int) -> dict[str, Any]:
    known: dict[str, Any] = {
        "time": _timestamp(event.unix_seconds),
        "level": event.level,
        "role": role,
        "pid": pid,
        "logger": event.logger,
        "message": event.message,
    }
    if event.left_out:
        known["left_out"] = event.left_out
    # What an event says of itself cannot take the place of what is known of it, nor be written without being escaped.
    taken = known.keys() | event.blocks.keys() | _RESERVED
    return {**known, **{key: value for key, value in event.fields.items() if key not in taken}}


def _timestamp(unix_seconds: float) -> str:
    at = datetime.fromtimestamp(unix_seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _indented(event: LogEvent) -> list[str]:
    lines = []
    for name, text in event.blocks.items():
        if name != "exception":
            lines.append(f"    {escape_controls(name)}:")
        lines.extend(f"    {escape_controls(line)}" for line in text.splitlines())
    return lines
