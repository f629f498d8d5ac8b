"""What belongs to which simulated process, though they are all one: descriptors and record locks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.simulation.process import Process


class Ownership:
    """Knows who runs, and what is whose.

    Attributes:
        current: The process that runs; None for the supervisor.
        supervisor_descriptors: Those of the supervisor.
    """

    def __init__(self) -> None:
        self.current: Process | None = None
        self.supervisor_descriptors: set[int] = set()
        self._locks: dict[int, Process] = {}

    @contextlib.contextmanager
    def inside(self, process: Process) -> Iterator[None]:
        """For so long, a process runs."""
        self.current = process
        try:
            yield
        finally:
            self.current = None

    def opened(self, *fds: int) -> None:
        """Who runs has new descriptors."""
        self._owned().update(fds)

    def closing(self, fd: int) -> None:
        """Who runs closes one."""
        self._owned().discard(fd)

    def _owned(self) -> set[int]:
        return self.supervisor_descriptors if self.current is None else self.current.descriptors

    def duplicate(self, fd: int) -> int:
        """A copy on its way to another process, which is nobody's yet."""
        copy = os.dup(fd)
        self._owned().discard(copy)
        return copy

    def close(self, process: Process, fd: int) -> None:
        """Close what a dead process left open."""
        process.descriptors.discard(fd)
        with self.inside(process):
            os.close(fd)

    def lock(self, file: int) -> bool:
        """Take the record lock of a file for the process that runs."""
        assert self.current is not None
        return self._locks.setdefault(file, self.current) is self.current

    def unlock(self, file: int) -> None:
        """Give it up."""
        self._locks.pop(file, None)

    def unlock_all(self, process: Process) -> None:
        """The record locks of a process vanish with it."""
        self._locks = {file: owner for file, owner in self._locks.items() if owner is not process}
