"""What one served model version is, as the supervisor tells it to front ends and workers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from predictd.server.config.model_config import TensorConfig, Warmup

# A model that names no levels of its own has these, and the middle one is its default.
DEFAULT_PRIORITY_LEVELS = 3


class QueueRules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for requests of one priority of a lane while they wait.

    Attributes:
        max_queue_size: Requests that may wait.
        max_queue_bytes: Bytes of requests that may wait in a front end; 0 leaves it to its arena's limit.
        timeout_ns: How long a request may wait; 0 as long as it takes.
        timeout_override: A request may ask for a shorter time.
        delay: A request that has waited so long is served after all others; otherwise it is refused.
    """

    max_queue_size: int
    max_queue_bytes: int = 0
    timeout_ns: int = 0
    timeout_override: bool = False
    delay: bool = False


class LaneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A lane: one version of one model, its file and its batching rules.

    Attributes:
        lane: Id, never reused while the supervisor lives.
        model: Name that clients use.
        version: Version number, at least 1.
        path: The model file.
        engine: Name in the engine registry, or "package.module:function".
        max_batch_size: Rows merged into one run at most, at least 1. A larger single request runs alone.
        max_delay_ns: How long the leader may wait for a batch to fill; 0 never waits.
        max_queue_size: Requests that may wait, as asked for; the kernel grants the pipe's size.
        max_request_rows: A request with more rows is refused.
        run_timeout_ns: A run that takes longer costs the worker its life.
        default_deadline_ns: When a request is given up whose client sets no deadline; 0 never.
        threads: Threads of one run.
        threads_asked: Somebody asked for so many; else they are what the plan allows, and fewer may be enough.
        spin: Threads that wait for each other within a run may spin, and the worker may wait awake for tickets.
        device: Where to run, such as "cpu".
        parameters: Engine-specific settings.
        files_by_capability: What to load instead on a GPU of a compute capability, such as "8.9".
        inputs: What the model's configuration says of inputs.
        outputs: The same of outputs.
        served_outputs: Names of the outputs that are served; empty for all.
        warmup: What to run before the model is served; None for zeros at each batch size.
        origins: Where `inputs`, `outputs` and `warmup` stand, for messages.
        preferred_batch_sizes: Ascending, up to max_batch_size. Of the waiting rows, the largest of these that can be
            had runs at once.
        priority_levels: Requests have priorities from 1, which goes first, to this; 0 for a model that does not say
            so, whose requests have `DEFAULT_PRIORITY_LEVELS` and none beyond is wrong.
        default_priority: Of a request that does not say so itself.
        tuned: What of all this was found by tuning, and where; empty if nothing was.
        queues: The rules of each priority; empty when `max_queue_size` is all that there is to say.
    """

    lane: int
    model: str
    version: int
    path: str
    engine: str
    max_batch_size: int
    max_delay_ns: int
    max_queue_size: int
    max_request_rows: int
    run_timeout_ns: int
    threads: int
    threads_asked: bool = False
    spin: bool = False
    device: str = "cpu"
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    files_by_capability: dict[str, str] = msgspec.field(default_factory=dict)
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    served_outputs: tuple[str, ...] = ()
    warmup: Warmup | None = None
    origins: dict[str, str] = msgspec.field(default_factory=dict)
    preferred_batch_sizes: tuple[int, ...] = ()
    priority_levels: int = 0
    default_priority: int = 2
    queues: tuple[QueueRules, ...] = ()
    default_deadline_ns: int = 0
    tuned: str = ""

    @property
    def identity(self) -> dict[str, str | int]:
        """Fields of log lines that are about it."""
        return {"model": self.model, "version": self.version}

    @property
    def queue_rules(self) -> tuple[QueueRules, ...]:
        """The rules of each priority, from 1 on."""
        levels = self.priority_levels or DEFAULT_PRIORITY_LEVELS
        return self.queues or (QueueRules(max_queue_size=self.max_queue_size),) * levels


def pool_queues(lanes: Iterable[LaneConfig]) -> tuple[int, int]:
    """The queues that a pool needs for its lanes, at least one: for how many requests each, and how many.

    The last is for the requests that were delayed, where there may be such.
    """
    rules = [lane.queue_rules for lane in lanes]
    levels = max(len(queues) for queues in rules)
    delays = any(queue.delay for queues in rules for queue in queues)
    return max(queue.max_queue_size for queues in rules for queue in queues), levels + delays


class WireTensor(msgspec.Struct, frozen=True):
    """A TensorSpec as it travels between processes.

    Attributes:
        dtype: A value of `predictd.engines.api.DType`.
        labels_file: Names of the classes that an output scores; empty without.
        labels_digest: Of what the worker read there.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    optional: bool = False
    labels_file: str = ""
    labels_digest: str = ""


class LaneSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker found in the model.

    Attributes:
        inputs: In engine order, as clients see them.
        outputs: The same.
        batches: Rows of several requests may share a run.
        max_rows: The engine's hard limit of rows in one run, None if it has none.
        engine: The runtime's name.
    """

    inputs: tuple[WireTensor, ...]
    outputs: tuple[WireTensor, ...]
    batches: bool
    max_rows: int | None
    engine: str
