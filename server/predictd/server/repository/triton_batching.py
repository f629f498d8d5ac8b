"""Dynamic batching, queues and priorities of a `config.pbtxt`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from predictd.server.config.model_config import MOST_PRIORITY_LEVELS, QueuePolicy, TimeoutAction
from predictd.server.repository.protoschema import Notes, Record

# The same bounds as in model.toml.
_MOST_QUEUED = 2**20
_LONGEST_DELAY_NS = 60 * 10**9
_LONGEST_TIMEOUT_NS = 24 * 3600 * 10**9

# A field of ModelConfig, its value, and the line that says so.
Setting = tuple[str, object, int]


def read_batching(record: Record, notes: Notes) -> Iterator[Setting]:
    """Read `dynamic_batching`.

    Args:
        record: As the schema has it.
        notes: For what is wrong and what predictd does not do.
    """
    sizes, line = record.wholes("preferred_batch_size"), record.line_of("preferred_batch_size")
    if any(size < 1 for size in sizes):
        message = f"preferred_batch_size has {min(sizes)}"
        notes.error(line, "dynamic_batching.preferred_batch_size", message, "write numbers from 1")
    elif sizes:
        yield "preferred_batch_sizes", tuple(sorted(set(sizes))), line
    if "max_queue_delay_microseconds" in record:
        delay_ns = _duration_ns(record, "max_queue_delay_microseconds", _LONGEST_DELAY_NS, notes)
        yield "max_delay_ns", delay_ns, record.line_of("max_queue_delay_microseconds")
    if record.flag("preserve_ordering"):
        line = record.line_of("preserve_ordering")
        message = "answers are given as they are ready; a stream keeps the order of its requests"
        notes.warn(line, "dynamic_batching.preserve_ordering", message)
    yield from _priorities(record, notes)
    default = record.record("default_queue_policy")
    if default is not None:
        policy = _queue_policy(default, notes)
        for name in ("max_queue_size", "default_timeout_ns", "allow_timeout_override", "timeout_action"):
            if getattr(policy, name) is not None:
                yield name, getattr(policy, name), default.line


def _priorities(record: Record, notes: Notes) -> Iterator[Setting]:
    levels, line = record.whole("priority_levels"), record.line_of("priority_levels")
    default = record.whole("default_priority_level")
    if levels > MOST_PRIORITY_LEVELS:
        message = f"{levels} priority levels are more than {MOST_PRIORITY_LEVELS}"
        notes.error(line, "dynamic_batching.priority_levels", message, "use fewer")
        return
    if levels:
        yield "priority_levels", levels, line
        if not default:
            message = "priority_levels without default_priority_level"
            notes.error(
                line, "dynamic_batching.default_priority_level", message, f"add one from 1 to {levels}"
            )
    if default:
        yield "default_priority", default, record.line_of("default_priority_level")
    queues = {
        entry.whole("key"): _level_policy(_queue_policy(policy, notes))
        for entry in record.records("priority_queue_policy")
        if (policy := entry.record("value")) is not None
    }
    if queues:
        yield "priority_queues", queues, record.line_of("priority_queue_policy")


def _level_policy(policy: QueuePolicy) -> QueuePolicy:
    """To Triton, what a level's own policy leaves out is not limited, whatever the default policy says."""
    return replace(
        policy,
        max_queue_size=policy.max_queue_size or 0,
        default_timeout_ns=policy.default_timeout_ns or 0,
    )


def _queue_policy(record: Record, notes: Notes) -> QueuePolicy:
    """A policy that is there at all leaves nothing to the daemon: Triton's defaults hold for the rest."""
    place, line = "queue_policy.max_queue_size", record.line_of("max_queue_size")
    size = record.whole("max_queue_size")
    if size == 0 and "max_queue_size" in record:
        notes.warn(line, place, "max_queue_size 0 is no limit to Triton; predictd's queues always have one")
    if size > _MOST_QUEUED:
        notes.warn(line, place, f"max_queue_size {size} is lowered to {_MOST_QUEUED}, the most that can wait")
    timeout_ns = _duration_ns(record, "default_timeout_microseconds", _LONGEST_TIMEOUT_NS, notes)
    action: TimeoutAction = "delay" if record.text("timeout_action") == "DELAY" else "reject"
    return QueuePolicy(
        max_queue_size=min(size, _MOST_QUEUED) or None,
        default_timeout_ns=timeout_ns or None,
        allow_timeout_override=record.flag("allow_timeout_override"),
        timeout_action=action,
    )


def _duration_ns(record: Record, name: str, longest_ns: int, notes: Notes) -> int:
    duration_ns = record.whole(name) * 1000
    if duration_ns > longest_ns:
        message = f"{name} is more than {longest_ns // 10**9} seconds"
        notes.error(record.line_of(name), f"dynamic_batching.{name}", message, "lower it")
    return duration_ns
