"""A simulated thread: real code on a thread of its own, of which one runs at a time and only when it is resumed.

It stops at the points that `kernel` puts in: before and after each system call that others can see, and where it waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar


class KilledError(BaseException):
    """The process was killed: unwinds what ran. Whatever that does on its way out, nobody sees."""


class Strand:
    """One thread of a simulated process.

    Args:
        name: For traces.
        target: What it runs.

    Attributes:
        current: The one that runs now.
        done: It has ended.
        error: What it raised, a kill apart.
        point: Where it stopped.
    """

    current: ClassVar[Strand | None] = None

    def __init__(self, name: str, target: Callable[[], None]) -> None:
        self.name = name
        self.done = False
        self.error: BaseException | None = None
        self.killed = False
        self.point = "begin"
        self._target = target
        self._ready: Callable[[], bool] | None = None
        self.wakes_ns: int | None = None
        # Batons rather than semaphores, which take three times as long; nobody has them at first.
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread: threading.Thread | None = None

    def is_ready(self, now_ns: int) -> bool:
        """Whether resuming it would get it any further."""
        if self._ready is None:
            return True
        return (self.wakes_ns is not None and self.wakes_ns <= now_ns) or self._ready()

    def resume(self) -> None:
        """Let it run up to its next stop."""
        if self._thread is None:
            if self.killed:
                self.done = True
                return
            self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)
            self._thread.start()
        previous, Strand.current = Strand.current, self
        self._go.release()
        self._back.acquire()
        Strand.current = previous
        if self.done:
            self._thread.join()

    def kill(self) -> None:
        """Unwind it."""
        self.killed = True
        while not self.done:
            self.resume()

    def _main(self) -> None:
        self._go.acquire()
        try:
            self._target()
        except KilledError:
            pass
        except BaseException as error:  # noqa: BLE001 - the world reports it
            self.error = error
        finally:
            self.done = True
            self._back.release()

    # On the strand itself -------------------------------------------------------------------------------------

    def stop(self, point: str) -> None:
        """Let others run."""
        self.check()
        self.point = point
        self._back.release()
        self._go.acquire()
        self.check()

    def check(self) -> None:
        """Raise when it was killed."""
        if self.killed:
            raise KilledError

    def wait(self, point: str, ready: Callable[[], bool], wakes_ns: int | None) -> None:
        """Let others run until something is so, or a moment has come."""
        self._ready, self.wakes_ns = ready, wakes_ns
        try:
            self.stop(point)
        finally:
            self._ready, self.wakes_ns = None, None
