"""How long what a worker is at work on may take."""

from __future__ import annotations

from typing import NamedTuple

from predictd.server.config.settings import Settings
from predictd.server.supervise.catalog import Catalog
from predictd.server.supervise.pool import Place
from predictd.server.transport.claims import claimed_lanes


class Limit(NamedTuple):
    """How long something may take, and the setting that says so."""

    seconds: float
    setting: str


def work_limit(settings: Settings, catalog: Catalog, place: Place) -> Limit:
    """The limit of a run, or of the closing of an engine, which may take as long as loading it."""
    lanes = set() if place.claims is None else claimed_lanes(place.claims)
    if not lanes:
        return Limit(settings.load_timeout_ns / 1e9, "load_timeout")
    records = (catalog.find(lane) for lane in lanes)
    limits_ns = [record.config.run_timeout_ns for record in records if record is not None]
    return Limit(max(limits_ns, default=settings.run_timeout_ns) / 1e9, "run_timeout")
