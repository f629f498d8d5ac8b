"""Whether an engine holds memory of runs that are not made any more. Pure: told of runs, asked now and then.

An engine keeps what its largest run took for the next one of that size. When all runs of the last while were much
smaller, or there was none, it shall give that back: this costs one run more time, so it must not happen again and
again under a load that varies.
"""

from __future__ import annotations

import math
from collections import deque

from predictd.engines.api import Signature
from predictd.server.transport.retention import PARTS

# So much smaller the runs of a whole while have to be.
SHRINK_FACTOR = 4


class EngineMemory:
    """What is known of one engine's memory, in bytes of its inputs.

    Args:
        keep_ns: How long it is kept that no run needs.
        warmed_bytes: Of the largest run when the engine was warmed.

    Attributes:
        idle: There was no run in the whole of the last while.
    """

    def __init__(self, keep_ns: int, warmed_bytes: int) -> None:
        self._part_ns = keep_ns // PARTS
        self._ends_ns: int | None = None
        self._held_bytes = warmed_bytes
        self._part_bytes = 0
        self._parts: deque[int] = deque(maxlen=PARTS)
        self.idle = False

    def ran(self, size_bytes: int) -> None:
        """A run had inputs of so many bytes."""
        self._part_bytes = max(self._part_bytes, size_bytes)

    def shall_give_back(self, now_ns: int) -> bool:
        """Whether the engine holds much more than the last while needed. True once until it holds more again.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        if self._ends_ns is None:
            self._ends_ns = now_ns + self._part_ns
        if now_ns < self._ends_ns:
            return False
        self._ends_ns = now_ns + self._part_ns
        self._held_bytes = max(self._held_bytes, self._part_bytes)
        self._parts.append(self._part_bytes)
        self._part_bytes = 0
        needed_bytes = max(self._parts)
        self.idle = needed_bytes == 0
        if (
            len(self._parts) < PARTS
            or needed_bytes * SHRINK_FACTOR > self._held_bytes
            or not self._held_bytes
        ):
            return False
        self._held_bytes = needed_bytes
        return True


def inputs_bytes(signature: Signature, rows: int) -> int:
    """The bytes of made-up inputs of a run: a dimension that varies, other than the rows, counts once."""
    return sum(
        math.prod((rows if at == 0 else 1) if size < 0 else size for at, size in enumerate(spec.shape))
        * spec.dtype.itemsize
        for spec in signature.inputs
        if not spec.optional
    )
