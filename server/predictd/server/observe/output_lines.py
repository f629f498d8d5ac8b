"""What a child prints, as lines: how many of them are logged, and the last ones, for when it dies."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

LINE_CHARACTERS_MAX: Final = 1024
LINES_PER_SECOND: Final = 20
LAST_LINES: Final = 40


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line to log, and how many were left out before it."""

    text: str
    left_out: int


class OutputLines:
    """Cuts a child's output into lines. Keeps no clock.

    Args:
        lines_per_second: How many are logged; the others are counted.
        last_lines: How many are kept, logged or not.
    """

    def __init__(self, lines_per_second: int = LINES_PER_SECOND, last_lines: int = LAST_LINES) -> None:
        self._lines_per_second = lines_per_second
        self._last: deque[str] = deque(maxlen=last_lines)
        self._begun = b""
        self._left_out = 0
        self._second_ends = float("-inf")
        self._in_second = 0

    def feed(self, data: bytes, now_seconds: float) -> list[OutputLine]:
        """Take in what was printed. Gives the lines to log now."""
        *whole, self._begun = (self._begun + data).split(b"\n")
        lines = [line for text in whole if (line := self._take(text, now_seconds)) is not None]
        if len(self._begun) > LINE_CHARACTERS_MAX:
            begun, self._begun = self._begun, b""
            line = self._take(begun, now_seconds)
            lines += [] if line is None else [line]
        return lines

    def end(self) -> tuple[list[str], int]:
        """Nothing more will come: the last lines, and how many were left out since one was logged."""
        begun, self._begun = self._begun, b""
        if text := _text(begun):
            self._last.append(text)
            self._left_out += 1
        return list(self._last), self._left_out

    def _take(self, data: bytes, now_seconds: float) -> OutputLine | None:
        text = _text(data)
        if not text:
            return None
        self._last.append(text)
        if now_seconds >= self._second_ends:
            self._second_ends = now_seconds + 1
            self._in_second = 0
        if self._in_second >= self._lines_per_second:
            self._left_out += 1
            return None
        self._in_second += 1
        left_out, self._left_out = self._left_out, 0
        return OutputLine(text, left_out)


def _text(data: bytes) -> str:
    return data[:LINE_CHARACTERS_MAX].decode(errors="backslashreplace").rstrip()
