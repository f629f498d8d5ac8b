"""The thread of the supervisor that writes log lines.

A terminal that is paused, or a journal that is slow, stops this thread and not the supervisor. It also spares the
start the import of what makes lines of events: nothing is imported before there is time for it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Final, TextIO

from predictd.server.observe.escape import escape_controls
from predictd.server.observe.log_event import LogEvent
from predictd.server.observe.recent import TEXT_CHARACTERS_MAX, RecentEvent, RecentEvents

if TYPE_CHECKING:
    from predictd.server.observe.log_lines import Render

WAITING_MAX: Final = 10_000
CLOSE_SECONDS: Final = 2.0

_RECENT_LEVELS = frozenset({"warning", "error", "critical"})


class LogWriter:
    """Writes events as lines, in the order in which they were put.

    Args:
        stream: Where to write. It decides the format: a terminal is read by a person.
        waiting_max: How many events may wait for the stream; those beyond are left out.

    Attributes:
        recent: The last warnings and errors.
    """

    def __init__(self, stream: TextIO, waiting_max: int = WAITING_MAX) -> None:
        self.recent = RecentEvents()
        self._stream = stream
        self._waiting: queue.SimpleQueue[tuple[LogEvent, str, int] | None] = queue.SimpleQueue()
        self._waiting_max = waiting_max
        self._left_out = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._started = False

    def put(self, event: LogEvent, role: str, pid: int) -> None:
        """Have an event written. Never waits."""
        if event.level in _RECENT_LEVELS:
            self.recent.add(_recent(event, role, pid))
        if self._waiting.qsize() >= self._waiting_max:
            self._lose_one()
            return
        self._waiting.put((event, role, pid))

    def start(self) -> None:
        """Begin to write."""
        if not self._started:
            self._started = True
            self._thread.start()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits, unless the stream takes it too slowly."""
        self.start()
        self._waiting.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        from predictd.server.observe.log_lines import render_for  # structlog takes milliseconds to import

        render = render_for(self._stream)
        while (waiting := self._waiting.get()) is not None:
            self._write(render(*waiting))
            if self._waiting.empty():
                self._tell_left_out(render)
        self._tell_left_out(render)

    def _tell_left_out(self, render: Render) -> None:
        with self._counting:
            left_out, self._left_out = self._left_out, 0
        if left_out:
            self._write(render(_overflow(left_out), "supervisor", os.getpid()))

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError:
            # Nobody can be told now: the line is lost, and the next one may be written again.
            self._lose_one()

    def _lose_one(self) -> None:
        with self._counting:
            self._left_out += 1


def _overflow(left_out: int) -> LogEvent:
    message = f"{left_out} log lines are lost: they came faster than they could be written"
    return LogEvent(unix_seconds=time.time(), level="warning", logger=__name__, message=message)


def _recent(event: LogEvent, role: str, pid: int) -> RecentEvent:
    return RecentEvent(
        event.unix_seconds,
        event.level,
        role,
        pid,
        str(event.fields.get("model", "")),
        escape_controls(event.message[:TEXT_CHARACTERS_MAX]),
        event.left_out,
    )
