"""At most one line per event, model and second, with a count of what was left out."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

WINDOW_SECONDS: Final = 1.0
KEYS_MAX: Final = 1024

_PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z%]")

E = TypeVar("E")
Key = tuple[str, ...]


def key_of(record: logging.LogRecord) -> Key:
    """What tells an event from others: who logs it, its template, and the model (and version), or all names in it.

    Numbers and errors do not count: they differ from line to line of one event. A template that is all placeholders
    says nothing, so there the text counts.
    """
    template = str(record.msg)
    where = (record.name, record.levelname)
    if not any(char.isalnum() for char in _PLACEHOLDER.sub("", template)):
        return (*where, record.getMessage())
    model = getattr(record, "model", None)
    if model is not None:
        return (*where, template, str(model), str(getattr(record, "version", "")))
    given = record.args if isinstance(record.args, tuple) else ()
    return (*where, template, *(value for value in given if isinstance(value, str)))


@dataclass(slots=True)
class _Window(Generic[E]):
    ends_seconds: float
    left_out: int
    last: E | None


class LineLimit(Generic[E]):
    """Decides which lines are written. Keeps no clock.

    The last line that was left out is written once its window has passed, unless a newer one came: so all that was
    left out is counted on some line.

    Args:
        window_seconds: In which one line of an event is written.
        keys_max: Events that are known at a time; beyond, the oldest windows end early.
    """

    def __init__(self, window_seconds: float = WINDOW_SECONDS, keys_max: int = KEYS_MAX) -> None:
        self._window_seconds = window_seconds
        self._keys_max = keys_max
        # In the order of their ends.
        self._windows: dict[Key, _Window[E]] = {}
        self._pushed_out: list[tuple[E, int]] = []

    def admit(self, key: Key, line: E, now_seconds: float) -> int | None:
        """Whether to write a line: how many of its event were left out before it, None to leave it out, too."""
        window = self._windows.get(key)
        if window is not None and now_seconds < window.ends_seconds:
            window.left_out += 1
            window.last = line
            return None
        self._windows.pop(key, None)
        if len(self._windows) >= self._keys_max:
            oldest = self._windows.pop(next(iter(self._windows)))
            if oldest.last is not None:
                self._pushed_out.append((oldest.last, oldest.left_out - 1))
        self._windows[key] = _Window(now_seconds + self._window_seconds, 0, None)
        return 0 if window is None else window.left_out

    def overdue(self, now_seconds: float) -> list[tuple[E, int]]:
        """Lines to write now that were left out and had no successor, with how many were left out before each."""
        lines, self._pushed_out = self._pushed_out, []
        while self._windows:
            key = next(iter(self._windows))
            window = self._windows[key]
            if now_seconds < window.ends_seconds:
                break
            del self._windows[key]
            if window.last is not None:
                lines.append((window.last, window.left_out - 1))
                self._windows[key] = _Window(now_seconds + self._window_seconds, 0, None)
        return lines
