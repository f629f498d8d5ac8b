"""Logging of every process: one line an event, for a person on a terminal and as JSON otherwise.

No text that an event carries can end its line or drive the terminal: control characters are escaped.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Final, TextIO

from predictd.server.observe.escape import escape_controls

LEVELS: Final = ("debug", "info", "warning", "error")

# What every record has; anything beyond was given with `extra=` and belongs to the event.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(role: str, level: str, stream: TextIO | None = None) -> None:
    """Make this process log, in place of whatever was configured before. Warnings of Python are logged too.

    Args:
        role: Who writes, such as `supervisor` or `worker resnet 0`.
        level: One of LEVELS.
        stream: Where to write; standard error if None. It decides the format: a terminal is read by a person.

    Raises:
        ValueError: There is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter(role) if stream.isatty() else JsonFormatter(role))
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    # typing.override needs Python 3.12.
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        event: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": os.getpid(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event.update((key, value) for key, value in _fields(record).items() if key not in event)
        story = _story(record)
        if story:
            event["exception"] = story
        return json.dumps(event, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level, process and message; a traceback follows indented."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    # typing.override needs Python 3.12.
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        event = f"{self._role}[{os.getpid()}] {record.getMessage()}{fields}"
        first = f"{_timestamp(record)} {record.levelname:<7} {escape_controls(event)}"
        story = (f"    {escape_controls(line)}" for line in _story(record).splitlines())
        return "\n".join((first, *story))


def _timestamp(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _story(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(part.rstrip("\n") for part in parts)
