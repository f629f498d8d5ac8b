"""Who is to blame for the death of a shared pool's worker."""

from __future__ import annotations

from collections.abc import Sequence

from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.pool import Place, Pool
from predictd.server.transport.claims import claimed_lanes

# A lane at work in so many deaths of a shared pool's workers gets a pool of its own.
BLAME_LIMIT = 2


def culprits(place: Place, hosted: Sequence[LaneRecord]) -> set[int]:
    """The lanes that a dead worker was at work on."""
    if place.loading is not None:
        return {place.loading}
    if place.claims is None:
        return set()
    # What kills a worker may have written over its claims before.
    return claimed_lanes(place.claims) & {record.config.lane for record in hosted}


def to_isolate(pool: Pool, hosted: Sequence[LaneRecord]) -> list[LaneRecord]:
    """The lanes that must leave a pool for the sake of the others."""
    if len(hosted) < 2:
        return []
    return [
        record
        for record in hosted
        if pool.blame[record.config.lane] >= BLAME_LIMIT and record.state != "UNLOADING"
    ]
