"""May an arena grow? Answered before the memory is touched: pressure kills, it does not fail."""

from __future__ import annotations

from predictd.server.launch.memory import Headroom, MemoryHeadroom

# What must stay free for everything that is not an arena: interpreters, engines, the page cache of the
# models.
RESERVE_BYTES = 64 * 1024 * 1024
# The share of the limit that requests leave to answers, and answers to requests: each needs the other.
OTHERS_SHARE = 4


def arena_limit_bytes(asked_bytes: int | None, headroom: Headroom) -> int:
    """What all arenas together may take: as asked, else a quarter of the tightest memory limit."""
    return asked_bytes or headroom.limit_bytes // 4


class GrowthPolicy:
    """Grants growth against the arena limit and the memory that all control groups leave.

    Args:
        limit_bytes: For all arenas together, as `arena_limit_bytes` takes it.
        headroom: Reads what is left.
    """

    def __init__(self, limit_bytes: int | None, headroom: MemoryHeadroom) -> None:
        self._headroom = headroom
        self.limit_bytes = arena_limit_bytes(limit_bytes, headroom.read())
        self._promised: dict[int, int] = {}

    def decide(
        self, child: int, size_bytes: int, arenas_bytes: int, alike_bytes: int = 0, beside_bytes: int = 0
    ) -> str | None:
        """Grant `size_bytes` to a child, or say why not.

        Args:
            child: Who asks. It has at most one growth under way.
            size_bytes: Of the new segment.
            arenas_bytes: All segments of all children now.
            alike_bytes: Those of them that are of the child's kind, for requests or for answers.
            beside_bytes: What the child will take outside its arena when the segment is in use.

        Returns:
            None when granted, else the reason, which clients may read.
        """
        promised = sum(size for other, size in self._promised.items() if other != child)
        alike_limit_bytes = self.limit_bytes - self.limit_bytes // OTHERS_SHARE
        if (
            arenas_bytes + promised + size_bytes > self.limit_bytes
            or alike_bytes + promised + size_bytes > alike_limit_bytes
        ):
            return f"the shared memory is at its limit of {self.limit_bytes} bytes (arena_limit)"
        left = self._headroom.read().bytes - promised - RESERVE_BYTES
        if size_bytes + beside_bytes > left:
            return f"the memory limit leaves no room for {size_bytes} more bytes"
        self._promised[child] = size_bytes
        return None

    def headroom(self) -> Headroom:
        """What memory is left now.

        Raises:
            OSError: A file of the kernel's cannot be read.
            ValueError: A file is not what the kernel documents.
        """
        return self._headroom.read()

    def settle(self, child: int) -> int:
        """The child made its segment, or died. The bytes that it was granted."""
        return self._promised.pop(child, 0)
