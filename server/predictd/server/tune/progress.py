"""How far the search is, on standard error: one line that changes on a terminal, else a line for each trial."""

from __future__ import annotations

from typing import TextIO

from predictd.server.tune.search import Progress, Trial

_CLEAR = "\r\x1b[K"


def progress_text(trial: Trial, progress: Progress, left_seconds: float) -> str:
    """A trial that begins, and how long all will take at most."""
    minutes, seconds = divmod(max(0, round(left_seconds)), 60)
    left = f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
    where = f"{progress.stage}/{progress.stages} {trial.stage}: {progress.trial}/{progress.trials}"
    return f"{where}: {trial.candidate} ({left} left)"


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
