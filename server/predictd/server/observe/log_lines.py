"""From events to lines: text for a person at a terminal, else JSON.

No text that an event carries can end its line or drive the terminal: control characters are escaped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias

from structlog import dev, processors

from predictd.server.observe.escape import escape_controls
from predictd.server.observe.log_event import LogEvent

Render: TypeAlias = Callable[[LogEvent, str, int], str]
_EventDict: TypeAlias = MutableMapping[str, Any]

_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_PLAIN: Final = "\x1b[0m"
# For a person these are the beginning of the line, in this order; all others follow the message.
_LEADING: Final = ("time", "level", "who", "message")
_SILENT: Final = ("logger",)
# ConsoleRenderer writes these as they are.
_RESERVED: Final = frozenset({"who", "exception", "stack", "exc_info"})


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
        dev.Column("time", _plain),
        dev.Column("level", _level(colours=colours)),
        dev.Column("who", _plain),
        dev.Column("message", _plain),
        *(dev.Column(name, _nothing) for name in _SILENT),
        dev.Column("", lambda key, value: f"{escape_controls(key)}={escape_controls(str(value))}"),
    ]
    render = dev.ConsoleRenderer(columns=columns, sort_keys=False)

    def line(event: LogEvent, role: str, pid: int) -> str:
        known = _event_dict(event, role, pid)
        known["who"] = f"{known.pop('role')}[{known.pop('pid')}]"
        first = str(render(None, "", {name: known.pop(name) for name in _LEADING} | known))
        return "\n".join((first, *_indented(event)))

    return line


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


def _plain(_: str, value: object) -> str:
    return escape_controls(str(value))


def _nothing(_: str, __: object) -> str:
    return ""


def _level(*, colours: bool) -> dev.ColumnFormatter:
    def formatted(_: str, value: object) -> str:
        text = f"{str(value).upper():<7}"
        return f"{_COLOURS.get(str(value), '')}{text}{_PLAIN}" if colours else text

    return formatted
