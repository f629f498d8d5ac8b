"""Lanes on their way to a worker: as few messages as their sizes allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from predictd.server.config.lane import LaneConfig
from predictd.server.control.channel import MAX_MESSAGE_BYTES
from predictd.server.control.messages import AddLanes

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
# For what is around the lanes.
_ENVELOPE_BYTES = 1024


def lane_messages(lanes: Sequence[LaneConfig], most: int) -> Iterator[AddLanes]:
    """Lanes in messages of at most so many each, none too large for the channel."""
    part: list[LaneConfig] = []
    free_bytes = 0
    for lane in lanes:
        size_bytes = len(_encode(lane))
        if part and (len(part) == most or size_bytes > free_bytes):
            yield AddLanes(lanes=part)
            part = []
        if not part:
            free_bytes = MAX_MESSAGE_BYTES - _ENVELOPE_BYTES
        part.append(lane)
        free_bytes -= size_bytes
    if part:
        yield AddLanes(lanes=part)
