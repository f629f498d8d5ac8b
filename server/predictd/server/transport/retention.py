"""What an arena keeps: pure bookkeeping of how much of it was needed lately.

A load that comes and goes needs the same memory again and again; one that has passed does not. So what counts is the
most that was in use at once, of each size class, during the whole of the last while. A segment is surplus when the
others of its class hold that and a quarter more. It follows that a load whose peaks return within that while never
has memory taken away that it asks for again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from predictd.server.transport.allocator import SegmentShape

# The last while is looked at in so many parts; what was needed is forgotten a part at a time.
PARTS = 4
# Blocks to keep for each that was needed, beyond it: one in so many.
SPARE_SHARE = 4


class Retention:
    """Remembers the peaks of an arena.

    Args:
        keep_ns: How long memory is kept that nobody needs.
    """

    def __init__(self, keep_ns: int) -> None:
        self._part_ns = keep_ns // PARTS
        self._ends_ns: int | None = None
        self._peaks: deque[Mapping[int, int]] = deque(maxlen=PARTS)

    def is_due(self, now_ns: int) -> bool:
        """Whether a part of the while is over, and `ended` is to be told of it."""
        if self._ends_ns is None:
            self._ends_ns = now_ns + self._part_ns
        return now_ns >= self._ends_ns

    def ended(self, now_ns: int, peaks: Mapping[int, int]) -> None:
        """A part is over.

        Args:
            now_ns: When.
            peaks: The most blocks of each size class that were in use at once in it.
        """
        self._peaks.append(peaks)
        self._ends_ns = now_ns + self._part_ns

    def surplus(
        self, segments: Mapping[int, SegmentShape], used: Mapping[int, int], reserved: Mapping[int, int]
    ) -> list[int]:
        """Segments that the whole of the last while did without; none before it has passed once.

        Args:
            segments: Those in use.
            used: Blocks in use of each segment, where there are any.
            reserved: Blocks of each size class that are kept whatever was needed.
        """
        if len(self._peaks) < PARTS:
            return []
        return _beyond(list(self._peaks), segments, used, reserved)

    def pressed(
        self,
        segments: Mapping[int, SegmentShape],
        used: Mapping[int, int],
        reserved: Mapping[int, int],
        peaks: Mapping[int, int],
    ) -> list[int]:
        """Segments that can be spared when memory is asked for and there is none: only what is recent counts.

        Args:
            segments: Those in use.
            used: Blocks in use of each segment, where there are any.
            reserved: Blocks of each size class that are kept whatever was needed.
            peaks: Of the part that is not over.
        """
        return _beyond([*list(self._peaks)[-1:], peaks], segments, used, reserved)


def _beyond(
    peaks: list[Mapping[int, int]],
    segments: Mapping[int, SegmentShape],
    used: Mapping[int, int],
    reserved: Mapping[int, int],
) -> list[int]:
    """The segments without which what was needed can be had: idle ones first, then large ones."""
    capacity: Counter[int] = Counter()
    for shape in segments.values():
        capacity[shape.block_bytes] += shape.blocks
    result = []
    for segment in sorted(
        segments, key=lambda number: (used.get(number, 0), -segments[number].blocks, number)
    ):
        shape = segments[segment]
        peak = max(part.get(shape.block_bytes, 0) for part in peaks)
        needed = max(peak + peak // SPARE_SHARE, reserved.get(shape.block_bytes, 0))
        if capacity[shape.block_bytes] - shape.blocks >= needed:
            capacity[shape.block_bytes] -= shape.blocks
            result.append(segment)
    return result
