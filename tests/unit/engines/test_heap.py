import ctypes
import os
from pathlib import Path

import pytest

from predictd.engines.heap import trim_heap

BLOCK_BYTES = 64 * 1024
BLOCKS = 1600


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_was_freed_goes_back_to_the_system() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library has no malloc_trim")
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    # The last one holds the end of the heap, so that free alone returns nothing.
    for block in blocks[:-1]:
        libc.free(block)
    before = resident_bytes()
    trim_heap()
    libc.free(blocks[-1])
    assert before - resident_bytes() > BLOCKS * BLOCK_BYTES / 2
