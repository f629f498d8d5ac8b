"""Messages about shared memory: how an arena grows, and how it gives back."""

from __future__ import annotations

from predictd.server.control.message import Message


class GrowthRequest(Message, frozen=True, kw_only=True):
    """Child: may I add a segment of `size_bytes` to my arena?"""

    size_bytes: int


class Growth(Message, frozen=True, kw_only=True):
    """Supervisor: the answer. `reason` is empty when it is granted."""

    granted: bool
    reason: str = ""


class SegmentAdded(Message, frozen=True, kw_only=True):
    """Child: a new segment of my arena, one descriptor. Supervisor: the same, to those who shall read it.

    `owner` is the id of the frontend or worker that writes it. A frontend has an arena for each pool, a worker one.
    """

    seq: int
    owner: int
    pool: int
    segment: int
    block_bytes: int
    blocks: int


class SegmentUsable(Message, frozen=True, kw_only=True):
    """Supervisor: every reader mapped your segment."""

    pool: int
    segment: int


class SegmentRetired(Message, frozen=True, kw_only=True):
    """Child: I have given a segment of my arena back. Supervisor: the same, to those who have it mapped.

    All its blocks are free, and its number is not used again. Readers unmap it, then acknowledge.
    """

    seq: int
    owner: int
    pool: int
    segment: int
