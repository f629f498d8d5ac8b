"""A timer of the event loop that is exact to some microseconds: both asyncio's and uvloop's count milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Any, ClassVar

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_EXPIRATIONS_BYTES = 8


class _ITimerSpec(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("interval_seconds", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_seconds", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


class Timer:
    """Calls back once for each time that it is set; setting it again replaces what it was set to.

    Args:
        callback: What is called, in the running event loop.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        # os.timerfd_create is there from Python 3.13 on.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = _ITimerSpec(0, 0, 0, 0)
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._expired)

    def wake_at(self, when_ns: int) -> None:
        """Call back at a time of CLOCK_MONOTONIC; at once if it is over."""
        self._spec.value_seconds, self._spec.value_ns = divmod(max(1, when_ns), 1_000_000_000)
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Call back no more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, _EXPIRATIONS_BYTES)
        except BlockingIOError:
            # It was set anew between the loop's look and this.
            return
        self._callback()
