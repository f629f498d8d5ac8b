"""Progress of something long: one line that changes on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Self

_LOG_SECONDS = 10.0


class ProgressLine:
    """Shows how far something is, on standard error."""

    def __init__(self) -> None:
        self._width = 0
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def show(self, progress: object) -> None:
        """Show this now."""
        text = str(progress)
        if self._terminal:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif time.monotonic() - self._shown >= _LOG_SECONDS:
            self._shown = time.monotonic()
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
