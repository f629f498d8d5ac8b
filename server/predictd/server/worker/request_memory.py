"""What front ends wrote, mapped read-only: their request segments, and where to answer them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictd.server.transport.blocks import CANCELLED_OFFSET
from predictd.server.transport.memory import map_shared
from predictd.server.transport.records import Records


@dataclass(frozen=True, slots=True)
class RequestSegment:
    """One slab of a front end: `slab` is (blocks, block_bytes) bytes, read-only."""

    slab: npt.NDArray[np.uint8]
    view: memoryview
    block_bytes: int

    def block(self, index: int) -> memoryview:
        """The bytes of one block."""
        return self.view[index * self.block_bytes : (index + 1) * self.block_bytes]


class FrontendMemory:
    """All segments of the living front ends. The control thread adds, the run loop reads and removes."""

    def __init__(self) -> None:
        self._segments: dict[tuple[int, int], RequestSegment] = {}
        self.completion_fds: dict[int, int] = {}

    def attach(self, frontend: int, completion_fd: int) -> None:
        """Know a front end."""
        self.completion_fds[frontend] = completion_fd

    def add_segment(self, frontend: int, segment: int, fd: int, block_bytes: int, blocks: int) -> None:
        """Map a segment; consumes the descriptor."""
        try:
            mapping = map_shared(fd, block_bytes * blocks)
        finally:
            os.close(fd)
        view = memoryview(mapping)
        slab = np.frombuffer(mapping, np.uint8).reshape(blocks, block_bytes)
        self._segments[frontend, segment] = RequestSegment(slab, view, block_bytes)

    def detach(self, frontend: int) -> None:
        """Forget a dead front end. Its memory is unmapped when the last view of it is dropped."""
        for key in [key for key in self._segments if key[0] == frontend]:
            del self._segments[key]
        completion_fd = self.completion_fds.pop(frontend, None)
        if completion_fd is not None:
            os.close(completion_fd)

    def segment(self, frontend: int, segment: int) -> RequestSegment:
        """One segment. Tickets of segments that are not mapped are dropped before they are planned."""
        return self._segments[frontend, segment]

    def cancelled(self, window: Records) -> npt.NDArray[np.bool_]:
        """For each ticket, whether its client gave up or its front end is dead."""
        result = np.zeros(len(window), bool)
        if not len(window):
            return result
        frontends, segments = window["frontend"], window["segment"]
        first = (int(frontends[0]), int(segments[0]))
        if (frontends == first[0]).all() and (segments == first[1]).all():
            return self._marks(first, window["block"], window["flags"])
        pairs = frontends.astype(np.uint64) << np.uint64(32) | segments
        for pair in np.unique(pairs):
            at = pairs == pair
            key = (int(pair) >> 32, int(pair) & 0xFFFFFFFF)
            result[at] = self._marks(key, window["block"][at], window["flags"][at])
        return result

    def _marks(
        self, key: tuple[int, int], blocks: npt.NDArray[np.uint32], flags: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.bool_]:
        segment = self._segments.get(key)
        if segment is None:
            # A probe has no block. Any other ticket here belongs to a front end that is dead.
            alive = key[0] in self.completion_fds
            return np.equal(flags & 2, 0) if alive else np.ones(len(blocks), bool)
        marks: npt.NDArray[np.uint8] = segment.slab[blocks, CANCELLED_OFFSET]
        return np.asarray(marks != 0)
