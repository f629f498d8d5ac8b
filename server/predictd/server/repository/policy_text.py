"""A version policy as Triton and TensorFlow Serving both write it."""

from __future__ import annotations

from predictd.server.config.model_config import All, Latest, Specific, VersionPolicy
from predictd.server.repository.protoschema import INT64, UINT32, Notes, Record, Schema, many, one

VERSION_POLICY = Schema(
    {
        "latest": one(Schema({"num_versions": one(UINT32)})),
        "all": one(Schema({})),
        "specific": one(Schema({"versions": many(INT64)})),
    },
    oneofs=(("latest", "all", "specific"),),
)


def read_policy(record: Record | None, place: str, notes: Notes) -> VersionPolicy | None:
    """Read a policy.

    Args:
        record: As VERSION_POLICY has it; None where the file says nothing.
        place: The field, for the notices.
        notes: For what is wrong.
    """
    if record is None:
        return None
    if "all" in record:
        return All()
    specific = record.record("specific")
    if specific is None:
        latest = record.record("latest")
        return Latest(max(1, latest.whole("num_versions") if latest else 1))
    versions = specific.wholes("versions")
    if not versions or min(versions) < 1:
        message = "specific takes at least one version, each from 1"
        notes.error(record.line_of("specific"), f"{place}.specific", message)
        return None
    return Specific(tuple(sorted(set(versions))))
