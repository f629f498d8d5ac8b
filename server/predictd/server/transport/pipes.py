"""Pipes that carry records: made by the supervisor, non-blocking from creation, kept open by it for life."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from dataclasses import dataclass

RECORD_BYTES = 64
DEFAULT_PIPE_BYTES = 65536
LARGEST_PIPE_BYTES = 1 << 30
F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032


@dataclass(slots=True)
class Pipe:
    """Both ends of a pipe and the records that the kernel grants it.

    Attributes:
        read_fd: Read end, non-blocking.
        write_fd: Write end, non-blocking.
        records: How many 64-byte records it holds when every write fills its pages.
    """

    read_fd: int
    write_fd: int
    records: int

    def depth(self) -> int:
        """Records that wait in the pipe (FIONREAD / 64)."""
        return depth(self.read_fd)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_fd)
        os.close(self.write_fd)


def make_pipe(records: int = DEFAULT_PIPE_BYTES // RECORD_BYTES) -> Pipe:
    """Make a pipe for at least `records` records, or as many as the kernel grants.

    A pipe is grown beyond its default only where more is asked for: unprivileged users share a small quota of pipe
    pages (/proc/sys/fs/pipe-user-pages-soft) and may not pass a size (/proc/sys/fs/pipe-max-size). Where the kernel
    refuses all, half is asked for, and so on.

    Raises:
        OSError: No pipe can be made at all.
    """
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wanted_bytes = min(records * RECORD_BYTES, LARGEST_PIPE_BYTES)
    while wanted_bytes > DEFAULT_PIPE_BYTES and not _resize(write_fd, wanted_bytes):
        wanted_bytes //= 2
    return Pipe(read_fd, write_fd, capacity(write_fd))


def _resize(fd: int, size_bytes: int) -> bool:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, size_bytes)
    except OSError:
        return False
    return True


def capacity(fd: int) -> int:
    """Records that the pipe of this descriptor holds when every write fills its pages."""
    return int(fcntl.fcntl(fd, F_GETPIPE_SZ)) // RECORD_BYTES


def depth(read_fd: int) -> int:
    """Records that wait in the pipe whose read end this is."""
    waiting = array.array("i", [0])
    fcntl.ioctl(read_fd, termios.FIONREAD, waiting)
    return waiting[0] // RECORD_BYTES
