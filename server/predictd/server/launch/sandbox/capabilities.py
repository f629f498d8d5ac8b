"""What root is more than others (capabilities(7)), but for what a worker needs."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 23, 24, 47
_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522
_MOST: Final = 64

# Files of other users: models are often somebody else's, and the cache may be. Memory: pinned, on the nearest node.
KEPT: Final = {"dac_override": 1, "dac_read_search": 2, "ipc_lock": 14, "sys_nice": 23}


def drop() -> None:
    """Give up all capabilities but KEPT, for good; who has none gives up none. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held) != 0:
        raise _failed("capget")
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("6I", held.raw[:24])
    if not permitted and not permitted_high:
        return
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    kept = sum(1 << number for number in KEPT.values())
    for number in range(_MOST):
        # Only who has CAP_SETPCAP may; the sets below are what counts now.
        if not kept >> number & 1 and libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    low = (effective & kept, permitted & kept, 0)
    high = (effective_high & kept >> 32, permitted_high & kept >> 32, 0)
    if libc.capset(header, struct.pack("6I", *low, *high)) != 0:
        raise _failed("capset")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
