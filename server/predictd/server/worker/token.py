"""The leader token of a pool: a POSIX record lock that dies with its holder.

A record lock belongs to a process, so it excludes other processes and vanishes with the one that holds it (fcntl(2)).
It also vanishes when the process closes *any* descriptor of the file: a worker holds exactly one, and never closes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os


class LeaderToken:
    """Held by the one worker of the pool that may read its queues.

    The only worker of a pool holds it until it `resign`s or dies: nobody waits for it but a successor.

    Args:
        lock_fd: The pool's lock file.
        baton_read_fd: Readable when somebody released the token.
        baton_write_fd: Its other end.
        contended: The pool has more than one worker, so a release has to wake somebody.
    """

    def __init__(self, lock_fd: int, baton_read_fd: int, baton_write_fd: int, *, contended: bool) -> None:
        self._contended = contended
        self._held = False
        self._lock_fd = lock_fd
        self._baton_read_fd = baton_read_fd
        self._baton_write_fd = baton_write_fd

    @property
    def baton_fd(self) -> int:
        """Readable when somebody released the token."""
        return self._baton_read_fd

    def try_acquire(self) -> bool:
        """Take the token unless another worker holds it."""
        if self._held:
            return True
        if self._contended:
            # Before the try, also one in vain: a baton that nobody takes would keep every follower awake, and the
            # holder of now writes another after this.
            with contextlib.suppress(BlockingIOError):
                os.read(self._baton_read_fd, 64)
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        self._held = True
        return True

    def release(self) -> None:
        """Let another worker of the pool lead, if there are others."""
        if self._contended:
            self.resign()

    def resign(self) -> None:
        """Give the token up and wake a worker that waits for it."""
        self._held = False
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)
        if self._contended:
            with contextlib.suppress(BlockingIOError):
                os.write(self._baton_write_fd, b"\0")
