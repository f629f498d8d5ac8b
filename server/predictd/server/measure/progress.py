"""What is going on, on standard error: one line that changes on a terminal, else a line for each step."""

from __future__ import annotations

from typing import TextIO

_CLEAR = "\r\x1b[K"


class ProgressLine:
    """Where it is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()

    def show(self, text: str) -> None:
        """Say it, in place of what stood there before."""
        self._stream.write(f"{_CLEAR}{text}" if self._terminal else f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for the report."""
        if self._terminal:
            self._stream.write(_CLEAR)
            self._stream.flush()
