"""What every child does first: tie its life to the supervisor's, ignore its signals, send its output there."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.server.launch.spawn import die_with_parent

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_LINE_BUFFERED = 1  # _IOLBF of stdio.h


@dataclass(frozen=True, slots=True)
class Inherited:
    """Descriptors that a child was started with.

    Attributes:
        control_fd: Its end of the control channel.
        log_fd: Takes what it logs.
    """

    control_fd: int
    log_fd: int


def child_arguments(control_fd: int, supervisor_pid: int, log_fd: int, crash_fd: int) -> list[str]:
    """The arguments that `begin_child` reads."""
    return [str(number) for number in (control_fd, supervisor_pid, log_fd, crash_fd)]


def begin_child(arguments: Sequence[str]) -> Inherited:
    """Be a child of the supervisor.

    Args:
        arguments: CONTROL_FD SUPERVISOR_PID LOG_FD CRASH_FD. The last one takes where each thread stands when the
            process crashes: a file, so that nothing is lost however much it is.
    """
    control_fd, supervisor_pid, log_fd, crash_fd = (int(argument) for argument in arguments[:4])
    die_with_parent(supervisor_pid)
    # The supervisor decides when a child ends and what it logs; a signal to all processes of a service must neither
    # cut a drain short nor kill.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable(file=crash_fd, all_threads=True)
    _print_by_line()
    return Inherited(control_fd, log_fd)


def _print_by_line() -> None:
    """Let what is printed, by Python or C, leave with its line: a crash must not keep it, and nobody shall wait."""
    sys.stdout = _stream(1)
    sys.stderr = _stream(2)
    libc = ctypes.CDLL(None)
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, 0)


def _stream(fd: int) -> io.TextIOWrapper:
    lossy = io.BufferedWriter(_Lossy(fd, "w", closefd=False))
    return io.TextIOWrapper(lossy, errors="backslashreplace", line_buffering=True)


class _Lossy(io.FileIO):
    """Writes what the pipe takes now. The rest is lost: an engine that prints must not fail for it."""

    # typing.override needs Python 3.12.
    def write(self, data: Buffer) -> int:  # type: ignore[explicit-override]
        try:
            written: int | None = super().write(data)
        except BrokenPipeError:
            written = None
        return len(memoryview(data)) if written is None else written
