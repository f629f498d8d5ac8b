"""Giving up a load that nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Set by one thread while another one loads. What was set stays set.

    An engine that can stop a load in its midst does so by `calling`; any other may `is_set` now and then, or not care:
    its load is then run to its end and thrown away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._callback: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """Nobody waits for the load any more."""
        return self._set

    def set(self) -> None:
        """Give the load up."""
        with self._lock:
            self._set = True
            if self._callback is not None:
                self._callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have something called when the load is given up inside the block; at once if it is given up already.

        Args:
            callback: Asks the runtime to stop, from whatever thread. It must return soon, and is never called once the
                block is left.
        """
        with self._lock:
            self._callback = callback
            if self._set:
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callback = None
