"""Who serves a model while its own engine still builds what it runs, which may take many minutes.

A version that is to be served so gets two lanes at once: its own, whose load is the build, and that of the stand-in,
in a pool of its own. The stand-in's content is nothing that anybody wants, so the reconciler does with it what it does
with any old content: it is retired once the wanted content of the version is ready, and serves on if that fails.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from predictd.engines.traits import engine_traits
from predictd.server.config.settings import Settings
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.supervise.assembly import engine_of
from predictd.server.supervise.catalog import LaneRecord

NOBODY = "none"
_MARK = " (stand-in)"


def stand_in(model: FoundModel, version: FoundVersion, settings: Settings) -> FoundModel | None:
    """The model as the stand-in serves it; None when a version needs none, or nobody asked for one."""
    engine = model.file.while_building or settings.while_building
    builds = version.path.suffix.lower() in engine_traits(engine_of(model, version, settings)).builds
    # Who keeps resources rather than availability has no room for both.
    if engine == NOBODY or not builds or model.file.swap == "resource":
        return None
    # Parameters and device are those of the engine that builds.
    return replace(model, file=replace(model.file, engine=engine, parameters={}, device=None))


def fingerprint_of(own: str) -> str:
    """The fingerprint of a stand-in's lane for the content of this one."""
    return own + _MARK


def still_needed(record: LaneRecord, records: Collection[LaneRecord]) -> bool:
    """Whether a stand-in that loads is for a lane that is not ready itself."""
    own = record.fingerprint.removesuffix(_MARK)
    return any(
        other.fingerprint == own
        and (other.config.model, other.config.version) == (record.config.model, record.config.version)
        and other.state in ("LOADING", "FAILED")
        for other in records
    )
