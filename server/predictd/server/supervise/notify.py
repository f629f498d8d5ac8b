"""Telling a service manager how the daemon does: the protocol of sd_notify(3), one datagram a message.

It is so small that a library would be larger than what it replaces.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Mapping

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# A manager that takes in nothing of so many is not interested in the oldest.
PENDING_MAX = 64

_log = logging.getLogger(__name__)


class Notifier:
    """Sends assignments such as READY=1 to the service manager; without one it does nothing.

    Args:
        environ: Names the socket, and the watchdog's interval if there is one.
        pid: Our own; the watchdog may be meant for another process.

    Attributes:
        watchdog_seconds: After so long without a ping the manager ends us; None if it does not watch.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get(SOCKET, ""))
        self._pending: deque[bytes] = deque(maxlen=PENDING_MAX)
        self._failed = False
        self.watchdog_seconds = _watchdog_seconds(environ, pid) if self.active else None
        # It never blocks: the supervisor has more to do than to wait for its manager.
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind) if self.active else None

    @property
    def active(self) -> bool:
        """There is a manager to tell."""
        return self._address is not None

    def send(self, **assignments: str | int) -> None:
        """Send assignments in one message, after those that the manager has not taken in yet."""
        text = "".join(f"{name}={value}\n" for name, value in assignments.items())
        self._pending.append(text.encode("utf-8", "backslashreplace"))
        self.flush()

    def flush(self) -> None:
        """Send what the manager had no room for before."""
        if self._socket is None or self._address is None:
            self._pending.clear()
            return
        while self._pending:
            try:
                self._socket.sendto(self._pending[0], self._address)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
            else:
                self._failed = False
            self._pending.popleft()

    def _complain(self, error: OSError) -> None:
        if not self._failed:
            _log.warning("the service manager cannot be told anything (%s): %s", SOCKET, error.strerror)
        self._failed = True

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()


def _address(text: str) -> str | None:
    if not text:
        return None
    if text.startswith("@"):
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    _log.warning("%s=%s is neither a path nor an abstract address; nobody is told anything", SOCKET, text)
    return None


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    interval, whose = environ.get(WATCHDOG, ""), environ.get(WATCHDOG_PID, "")
    if not interval or (whose and whose != str(pid)):
        return None
    if not interval.isascii() or not interval.isdigit() or int(interval) == 0:
        _log.warning("%s=%s is no number of microseconds; no watchdog is served", WATCHDOG, interval)
        return None
    return int(interval) / 1e6
