"""Giving freed memory back to the system."""

from __future__ import annotations

import ctypes


def trim_heap() -> None:
    """Have the C library return the memory that it keeps after a load.

    A load parses a whole model and frees it again; glibc keeps as much as the model is large, for ever in a process
    that serves. Takes milliseconds where there is something to return, and nothing otherwise. Another C library or a
    preloaded allocator has rules of its own.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))
