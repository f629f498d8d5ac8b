"""Logging of every process. Children send what they log to the supervisor, which alone writes lines.

Everybody logs through `logging`. The handler here leaves out what comes too often, and hands the rest on: in a child
into a socket, in the supervisor to the thread that writes (`predictd.server.observe.log_writer`). Neither waits for
anybody: what does not fit is counted.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

import msgspec

from predictd.server.observe.log_event import LogEvent, from_record
from predictd.server.observe.log_limit import LineLimit, key_of
from predictd.server.observe.log_writer import LogWriter

LEVELS: Final = ("debug", "info", "warning", "error")
# Its lines are limited where they are made: each is of another request.
REQUESTS: Final = "predictd.requests"

_RELAYED = "predictd_relayed"
# No reader, or one that does not read: unix(7).
_NOT_NOW = (errno.EAGAIN, errno.ENOBUFS, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED)

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Labelled:
    """An event and whose it is."""

    event: LogEvent
    role: str
    pid: int


def configure(role: str, level: str, stream: TextIO | None = None) -> LogWriter:
    """Make this process, the supervisor, log, in place of whatever was configured before.

    Nothing is written before the writer is started or closed.

    Args:
        role: Who writes.
        level: One of LEVELS.
        stream: Where to write; standard error if None. It decides the format: a terminal is read by a person.

    Raises:
        ValueError: There is no such level.
    """
    writer = LogWriter(sys.stderr if stream is None else stream)
    pid = os.getpid()

    def write(labelled: Labelled) -> None:
        writer.put(labelled.event, labelled.role, labelled.pid)

    _install(_Handler(lambda event: Labelled(event, role, pid), write), level)
    return writer


def configure_child(log_fd: int, level: str) -> None:
    """Make this process, a child, send what it logs to the supervisor. Raises ValueError if there is no such level.

    Args:
        log_fd: A datagram or packet socket; taken over.
        level: One of LEVELS.
    """
    sender = _Sender(socket.socket(fileno=log_fd))
    _install(_Handler(lambda event: Labelled(event, "", 0), sender.send, sender.close), level)


def _install(handler: logging.Handler, level: str) -> None:
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Change the least level of this process's lines. Raises ValueError if there is no such level."""
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    logging.getLogger().setLevel(level.upper())


def current_level() -> str:
    """The least level of this process's lines."""
    return logging.getLevelName(logging.getLogger().level).lower()


def report_left_out(*, at_end: bool = False) -> None:
    """Let the last of the lines that were left out be written, if their time has come. Called now and then.

    Args:
        at_end: It has come for all.
    """
    now_seconds = math.inf if at_end else time.monotonic()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.report_left_out(now_seconds)


def relay(event: LogEvent, role: str, pid: int) -> None:
    """Log what a child has logged, or what stands for it."""
    record = logging.makeLogRecord(
        {
            "name": event.logger,
            "levelno": logging.getLevelNamesMapping()[event.level.upper()],
            "levelname": event.level.upper(),
            "msg": event.message,
            "created": event.unix_seconds,
            _RELAYED: Labelled(event, role, pid),
        }
    )
    # To the handlers at once: the child has looked at its level already. And the names of its loggers are its own, of
    # which the supervisor must not keep any number.
    logging.getLogger().handle(record)


class _Handler(logging.Handler):
    """From records to events, of which some are left out."""

    def __init__(
        self,
        label: Callable[[LogEvent], Labelled],
        write: Callable[[Labelled], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._end = end
        self._label = label
        self._write = write
        self._limit: LineLimit[LogEvent] = LineLimit()

    # typing.override needs Python 3.12.
    def emit(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]
        try:
            self._take(record)
        except Exception:  # noqa: BLE001 - as all handlers do: whoever logs must not fail for how it logs
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        relayed = getattr(record, _RELAYED, None)
        if isinstance(relayed, Labelled):
            self._write(relayed)
            return
        event = from_record(record)
        if record.name == REQUESTS:
            self._write(self._label(event))
            return
        now_seconds = time.monotonic()
        left_out = self._limit.admit(key_of(record), event, now_seconds)
        self._write_overdue(now_seconds)
        if left_out is not None:
            self._write(self._label(msgspec.structs.replace(event, left_out=left_out)))

    # typing.override needs Python 3.12.
    def close(self) -> None:  # type: ignore[explicit-override]
        self._end()
        super().close()

    def report_left_out(self, now_seconds: float) -> None:
        self.acquire()
        try:
            self._write_overdue(now_seconds)
        finally:
            self.release()

    def _write_overdue(self, now_seconds: float) -> None:
        for event, left_out in self._limit.overdue(now_seconds):
            self._write(self._label(msgspec.structs.replace(event, left_out=left_out)))


class _Sender:
    """Sends events, and counts those that the supervisor does not take."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._lost = 0

    def send(self, labelled: Labelled) -> None:
        event = labelled.event
        if self._lost:
            event = msgspec.structs.replace(event, fields={**event.fields, "lines_lost": self._lost})
        try:
            self._socket.send(_encode(event), socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            self._lost += 1
        else:
            self._lost = 0

    def close(self) -> None:
        self._socket.close()
