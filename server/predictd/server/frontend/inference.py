"""The request and the response that every protocol adapter speaks: the core between decode and encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from predictd.engines.api import DType
from predictd.server.config.lane import QueueRules

Buffer = bytes | memoryview


@dataclass(slots=True)
class InputTensor:
    """One input as the client sent it.

    `data` is raw little-endian, row-major; for BYTES each element is a uint32 little-endian length and its bytes.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: Buffer


@dataclass(slots=True)
class InferRequest:
    """A decoded request, not yet checked against the model.

    Attributes:
        model: Name, never empty.
        version: A version number, or None.
        label: A label, or None. At most one of version and label is set.
        inputs: In the order sent.
        outputs: Names wanted; empty for all, in signature order.
        priority: 0 is the default, 1 the highest.
        id: Echoed to the client.
        timeout_ns: The protocol's own time-out inside the message, 0 for none.
    """

    model: str
    inputs: Sequence[InputTensor]
    version: int | None = None
    label: str | None = None
    outputs: Sequence[str] = ()
    priority: int = 0
    id: str = ""
    timeout_ns: int = 0


@dataclass(slots=True)
class OutputTensor:
    """One output. `data` as in InputTensor."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: Buffer


@dataclass(slots=True)
class InferResponse:
    """An answer.

    Attributes:
        model: Name that was served.
        version: Version that answered.
        outputs: Those asked for, in the order asked for.
        queue_ns: From acceptance to the start of the run.
        compute_ns: The run.
        batch_rows: Rows of the batch; 0 for a model that does not batch.
        rows: Rows of the request itself; 1 for a model that does not batch.
    """

    model: str
    version: int
    outputs: Sequence[OutputTensor]
    queue_ns: int
    compute_ns: int
    batch_rows: int
    rows: int = 1


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output as metadata shows it.

    Attributes:
        name: As the model names it.
        dtype: Element type.
        shape: -1 stands for a dimension that may vary.
        optional: An input that may be left out.
        labels: Names of the classes that an output scores, by index; empty for one without a name.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a model as metadata shows it.

    Attributes:
        version: Number.
        state: "LOADING", "READY", "FAILED" or "UNLOADING".
        reason: Why it failed, or why its new content did while the old content serves on; else empty.
        engine: The runtime's name; empty until loaded.
        inputs: Empty until loaded.
        outputs: Empty until loaded.
        batches: The first dimension is the batch dimension.
        max_batch_size: Rows merged into one run.
        max_delay_ns: Linger of the leader.
        preferred_batch_sizes: What batches shall have if they can.
        priority_levels: Of its own; 0 if it has none.
        default_priority: Of requests that name none.
        queues: The rules of each priority, from 1 on.
        instances: Workers that serve it.
        labels: Names of this version.
        tuned: Which of its settings were found by tuning, and where; empty if none was.
    """

    version: int
    state: str
    reason: str = ""
    engine: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    batches: bool = False
    max_batch_size: int = 0
    max_delay_ns: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    priority_levels: int = 0
    default_priority: int = 0
    queues: tuple[QueueRules, ...] = ()
    instances: int = 1
    labels: tuple[str, ...] = ()
    tuned: str = ""


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """A label of a model.

    Attributes:
        name: What requests say.
        version: What it means; possibly a version that is not ready or not there.
        set_by: "configuration" or "run time".
        next_version: What it will mean once that version is ready; 0 if it means that already.
    """

    name: str
    version: int
    set_by: str
    next_version: int = 0


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """A setting of a model, its value as text, and where that comes from: a file and its line, a flag, a variable."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as metadata shows it.

    Attributes:
        name: What clients call it.
        versions: Highest first.
        default_version: Stands for the model when no version is named; with a split the one with the largest share
            (0 when none is ready).
        labels: By name.
        split: Versions and their percentages of the requests that name neither version nor label; empty sends them to
            the default version.
        settings: Of the default version, by name.
    """

    name: str
    versions: tuple[VersionInfo, ...]
    default_version: int
    labels: tuple[LabelInfo, ...] = ()
    split: tuple[tuple[int, int], ...] = ()
    settings: tuple[SettingInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class DurationSum:
    """A count and the nanoseconds that were spent on it."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """What happened to one version of a model since the daemon started, over all processes.

    Attributes:
        model: Name.
        version: Number.
        last_inference_ms: Milliseconds since the epoch of the newest answer, 0 if none.
        inference_count: Rows answered (requests, for a model that does not batch).
        execution_count: Runs of the engine.
        success: Requests answered, and their whole durations.
        fail: Requests that failed, and their whole durations.
        queue: Waiting.
        compute_infer: Running.
        batches: For each number of rows in a run: how many runs, and their time.
    """

    model: str
    version: int
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: DurationSum = field(default_factory=DurationSum)
    fail: DurationSum = field(default_factory=DurationSum)
    queue: DurationSum = field(default_factory=DurationSum)
    compute_infer: DurationSum = field(default_factory=DurationSum)
    batches: Mapping[int, DurationSum] = field(default_factory=dict)
