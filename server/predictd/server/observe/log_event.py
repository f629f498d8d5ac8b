"""What is logged, before it is a line: in the process that logs, on its way to the supervisor, and there."""

from __future__ import annotations

import logging
import math
import traceback
from typing import Final, Literal, TypeAlias

import msgspec

MESSAGE_CHARACTERS_MAX: Final = 4 * 1024
FIELD_CHARACTERS_MAX: Final = 512
FIELDS_MAX: Final = 32
BLOCK_CHARACTERS_MAX: Final = 16 * 1024
# A character has four bytes at worst, and names of fields are short. The kernel takes packets of 208 KiB at least.
ENCODED_BYTES_MAX: Final = 4 * (
    MESSAGE_CHARACTERS_MAX + FIELDS_MAX * (FIELD_CHARACTERS_MAX + 64) + BLOCK_CHARACTERS_MAX + 1024
)

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Value: TypeAlias = str | int | float | bool | None

# What every record has; anything beyond was given with `extra=` and belongs to the event.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event.

    Attributes:
        unix_seconds: When.
        level: As in logging.
        logger: Who logs within the process.
        message: What happened; any text.
        fields: What was said of it besides.
        blocks: Text of several lines by name, such as a traceback.
        left_out: How many of the same event were left out before this one.
    """

    unix_seconds: float
    level: Level
    logger: str
    message: str
    fields: dict[str, Value] = {}
    blocks: dict[str, str] = {}
    left_out: int = 0


def from_record(record: logging.LogRecord) -> LogEvent:
    """The event that a record of logging stands for."""
    extra = [(key, value) for key, value in vars(record).items() if key not in _STANDARD]
    story = _story(record)
    return LogEvent(
        unix_seconds=record.created,
        level=_level(record.levelno),
        logger=record.name,
        message=_cut(_encodable(record.getMessage()), MESSAGE_CHARACTERS_MAX),
        fields={_encodable(key): _value(value) for key, value in extra[:FIELDS_MAX]},
        blocks={"exception": shorten_block(_encodable(story))} if story else {},
    )


def shorten_block(text: str) -> str:
    """A block as long as it may be: of one that is longer, the beginning and the end."""
    if len(text) <= BLOCK_CHARACTERS_MAX:
        return text
    half = BLOCK_CHARACTERS_MAX // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _level(number: int) -> Level:
    """The level of logging; of one that a library made up, the next lower one."""
    if number >= logging.ERROR:
        return "critical" if number >= logging.CRITICAL else "error"
    if number >= logging.INFO:
        return "warning" if number >= logging.WARNING else "info"
    return "debug"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "…"


def _encodable(text: str) -> str:
    """The text, with what UTF-8 cannot write as in a Python string: names of files may be any bytes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        # JSON has no other numbers.
        return value if math.isfinite(value) else str(value)
    # The wire has 64 bits for an integer.
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _cut(_encodable(value if isinstance(value, str) else str(value)), FIELD_CHARACTERS_MAX)


def _story(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(part.rstrip("\n") for part in parts)
