"""What a child logs and prints, on its way to the log, and its last words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import Final

import msgspec

from predictd.server.observe.log_event import ENCODED_BYTES_MAX, Level, LogEvent, shorten_block
from predictd.server.observe.logs import relay
from predictd.server.observe.output_lines import OutputLines

OUTPUT: Final = "predictd.output"
_READ_BYTES: Final = 64 * 1024
# So much is read of a child in one turn of the event loop.
_EVENTS_AT_ONCE: Final = 64
# A dead child's output is at an end unless a process that it started goes on to print.
_LAST_READS: Final = 64
_CRASH_BYTES_MAX: Final = 64 * 1024
_YEAR_10000: Final = 253_402_300_800

_decode = msgspec.msgpack.Decoder(LogEvent).decode


class ChildOutput:
    """The supervisor's ends of what a child writes to: a socket for events, a pipe for prints, a file for a crash.

    The ends of the child never block.

    Args:
        loop: Whose turns read.
        title: Of the child, for lines.

    Attributes:
        pipe_fd: The child's standard output and standard error.
        log_fd: The child's end of the socket.
        crash_fd: The file.

    Raises:
        OSError: There are no descriptors left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, title: str) -> None:
        self._loop = loop
        self._title = title
        self._pid = 0
        self._lines = OutputLines()
        with contextlib.ExitStack() as undo:
            self.crash_fd = os.memfd_create("crash", os.MFD_CLOEXEC)
            undo.callback(os.close, self.crash_fd)
            self._pipe, self.pipe_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, self._pipe)
            undo.callback(os.close, self.pipe_fd)
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.setblocking(False)
            self.log_fd = theirs.detach()
            undo.pop_all()

    def started(self, pid: int) -> None:
        """The child runs and has its ends."""
        self._pid = pid
        self._close_theirs()
        self._loop.add_reader(self._pipe, self._print)
        self._loop.add_reader(self._socket.fileno(), self._log)

    def abandon(self) -> None:
        """The child could not be started."""
        self._close_theirs()
        self._close_ours()

    def ended(self, how: str) -> None:
        """The child has ended: log what it still wrote and, if it has not left by itself, its last words.

        Args:
            how: In words; empty if it left by itself.
        """
        self._loop.remove_reader(self._pipe)
        self._loop.remove_reader(self._socket.fileno())
        while self._take_event():
            pass
        for _ in range(_LAST_READS):
            if not self._take_output():
                break
        stack = os.pread(self.crash_fd, _CRASH_BYTES_MAX, 0).decode(errors="backslashreplace")
        last_lines, left_out = self._lines.end()
        blocks = {"stack": stack.strip(), "last_output": "\n".join(last_lines)}
        blocks = {name: shorten_block(text) for name, text in blocks.items() if text}
        if how and blocks:
            self._relay("error", f"last words, {how}", blocks, left_out)
        elif left_out:
            self._relay("info", last_lines[-1], {}, left_out - 1)
        self._close_ours()

    def _close_theirs(self) -> None:
        os.close(self.pipe_fd)
        os.close(self.log_fd)

    def _close_ours(self) -> None:
        os.close(self._pipe)
        os.close(self.crash_fd)
        self._socket.close()

    def _print(self) -> None:
        if self._take_output() == b"":
            self._loop.remove_reader(self._pipe)

    def _take_output(self) -> bytes | None:
        """Read once. Nothing is the end; None is nothing now."""
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return None
        for line in self._lines.feed(data, time.monotonic()):
            self._relay("info", line.text, {}, line.left_out)
        return data

    def _log(self) -> None:
        for _ in range(_EVENTS_AT_ONCE):
            if not self._take_event():
                return

    def _take_event(self) -> bool:
        """Take in one event. False when there is none now."""
        try:
            data = self._socket.recv(ENCODED_BYTES_MAX)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket.fileno())
            return False
        try:
            event = _decode(data)
            # Whoever writes the line makes a date of it.
            if not 0 <= event.unix_seconds < _YEAR_10000:
                raise msgspec.DecodeError("its time is none")
            relay(event, self._title, self._pid)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._relay("warning", f"logged what cannot be read: {error}", {}, 0)
        return True

    def _relay(self, level: Level, message: str, blocks: dict[str, str], left_out: int) -> None:
        event = LogEvent(
            unix_seconds=time.time(),
            level=level,
            logger=OUTPUT,
            message=message,
            blocks=blocks,
            left_out=left_out,
        )
        relay(event, self._title, self._pid)
