"""What a lost device costs: the lanes that run on it, and of a lane on several the workers that are placed there."""

from __future__ import annotations

from predictd.server.config.devices import has_others
from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.pool import Place, Pool
from predictd.server.supervise.states import State


def goes_on_elsewhere(pool: Pool, place: Place, record: LaneRecord) -> bool:
    """Whether a lane that fails to load is served by workers on other devices.

    Then it is the device that has failed since this worker's predecessor had it, and the worker ends: it comes back,
    after ever longer delays, until its place is given up.
    """
    return (
        has_others(record.config.device)
        and place.restarts > 0
        and any(
            other is not place and other.state is State.SERVING and other.child.id in record.loaded_by
            for other in pool.places
            if other.child is not None
        )
    )
