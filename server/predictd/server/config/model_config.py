"""What a model asks for itself, whichever file says it: `model.toml`, `config.pbtxt` or `models.config`.

Whatever it leaves out comes from the daemon's settings. Paths in it are joined to the folder of the file that
names them, so that nobody needs to know later where a setting came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from predictd.server.config.errors import ConfigError

if TYPE_CHECKING:
    from predictd.server.config.tuned import Tuned

# Each level is a queue of its own in every lane, and queues are pipes, of which a user may have few.
MOST_PRIORITY_LEVELS = 16

# Names of `predictd.engines.api.DType`, which this process does without.
DTYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)

Severity = Literal["error", "warning"]
TimeoutAction = Literal["reject", "delay"]
Swap = Literal["availability", "resource"]

_LABEL = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class ModelConfigError(ConfigError):
    """A file of a model's configuration cannot be used.

    Attributes:
        line: Where in the file; None if that is not known.
    """

    def __init__(self, path: Path, line: int | None, message: str) -> None:
        super().__init__(str(path), message)
        self.line = line

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{located(self.place, self.line)}: {self.message}"


def located(path: Path | str, line: int | None) -> str:
    """A place in a file as editors and compilers write it."""
    return str(path) if line is None else f"{path}:{line}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting stands.

    Attributes:
        path: The file.
        line: Where in it; None if that is not known.
    """

    path: Path
    line: int | None = None

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return located(self.path, self.line)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say about a line of a configuration.

    Attributes:
        line: Where in the file; None if that is not known.
        field: What it is about, such as "dynamic_batching.preserve_ordering".
        message: What is wrong, or what predictd does not do; one line.
        remedy: What to do about it; empty where the message says so already.
        severity: With an error, the model is not served; with a warning it is.
    """

    line: int | None
    field: str
    message: str
    remedy: str = ""
    severity: Severity = "error"


@dataclass(frozen=True, slots=True)
class Latest:
    """Serve the highest versions.

    Attributes:
        count: How many, at least 1.
    """

    count: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Serve every version."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Serve these versions, at least one."""

    versions: tuple[int, ...]


VersionPolicy = Latest | All | Specific


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """What happens to requests that wait; None where it says nothing.

    Attributes:
        max_queue_size: Requests that may wait; 0 says that only the daemon's own limit holds.
        max_queue_bytes: Bytes of requests that may wait; 0 says that only memory limits them.
        default_timeout_ns: How long a request may wait that does not say so itself; 0 says as long as it takes.
        allow_timeout_override: A request may ask for a shorter time.
        timeout_action: What becomes of a request that has waited so long: refused, or served after all others.
    """

    max_queue_size: int | None = None
    max_queue_bytes: int | None = None
    default_timeout_ns: int | None = None
    allow_timeout_override: bool | None = None
    timeout_action: TimeoutAction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorConfig:
    """What is said of an input or output; None where nothing is.

    Attributes:
        name: As the model names it.
        dtype: Name of a `predictd.engines.api.DType`.
        shape: As clients see it, with the batch dimension of a model that batches; -1 where it may vary.
        model_shape: As the model sees it, where that differs: the same elements in the same order.
        optional: An input that may be left out.
        labels_file: Names of the classes that an output scores, one a line.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    model_shape: tuple[int, ...] | None = None
    optional: bool = False
    labels_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupTensor:
    """An input of a warm-up request.

    Attributes:
        shape: With the batch dimension of a model that batches.
        rows: How often the data is repeated along the batch dimension; None for a model that does not batch.
        data: Where its elements come from. Random text is empty text, as it is with zeros.
        file: For "file": the elements of one row, raw, in row-major order; text with a 4-byte length before each.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    rows: int | None
    data: Literal["zeros", "random", "file"]
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupSample:
    """A request to run before the model is served.

    Attributes:
        name: For messages.
        runs: How often.
        inputs: Of the model, each once.
    """

    name: str
    runs: int
    inputs: tuple[WarmupTensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """What to run before the model is served.

    Attributes:
        mode: "none" runs nothing; "zeros" and "random" make inputs up from the model's signature; "file" takes
            the arrays of an .npz file, one an input; "samples" takes `samples`.
        file: The .npz file.
        samples: Requests, in order.
    """

    mode: Literal["none", "zeros", "random", "file", "samples"]
    file: Path | None = None
    samples: tuple[WarmupSample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a model asks for; None or empty where it says nothing.

    Attributes:
        engine: Name in the engine registry, or "package.module:function".
        while_building: Name of the engine that serves it while its own builds what it runs; "none" for none.
        model_file: What to load in a version's folder.
        model_files_by_capability: What to load instead on a GPU of a compute capability, such as "8.9".
        pool: Name of the pool of workers that this model shares with others that name it.
        max_batch_size: Rows of several requests merged into one run at most.
        max_delay_ns: How long a batch may wait to fill.
        preferred_batch_sizes: Ascending. Of the waiting rows, the largest of these that is there runs at once.
        instances: Workers of the model's pool.
        threads: Threads of one run.
        spin: Threads that wait for each other within a run may spin.
        cpu_weight: Its share of the CPUs beside other models.
        allocator: Memory allocator of the model's workers.
        openmp: OpenMP runtime of the model's workers.
        device: Where to run, such as "cpu".
        run_timeout_ns: How long a run may take.
        max_queue_size: Requests that may wait.
        max_queue_bytes: Bytes of requests that may wait.
        default_deadline_ns: When a request is given up whose client sets no deadline.
        default_timeout_ns: How long a request may wait that does not say so itself.
        allow_timeout_override: A request may ask for a shorter time.
        timeout_action: What becomes of a request that has waited so long.
        priority_levels: Requests have priorities from 1, which goes first, to this.
        default_priority: Of a request that does not say so itself.
        priority_queues: What single priorities have otherwise than the four settings above say.
        warmup: What to run before the model is served.
        inputs: What is said of inputs, in the order of the file.
        outputs: What is said of outputs, in the order of the file.
        served_outputs: Names of the outputs that are served; empty for all that the model has.
        version_policy: Which versions are served.
        swap: What is kept while new content replaces old: availability, with the new one loaded before the old one is
            retired, or resources, with the old one gone before the new one is loaded.
        labels: Names of versions.
        parameters: Settings of the engine.
        tuned: What was found best for it by measuring; None without.
        origins: Where each of these stands, by its name here.
    """

    engine: str | None = None
    while_building: str | None = None
    model_file: str | None = None
    model_files_by_capability: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None
    max_batch_size: int | None = None
    max_delay_ns: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    instances: int | None = None
    threads: int | None = None
    spin: bool | None = None
    cpu_weight: int | None = None
    allocator: str | None = None
    openmp: str | None = None
    device: str | None = None
    run_timeout_ns: int | None = None
    max_queue_size: int | None = None
    max_queue_bytes: int | None = None
    default_deadline_ns: int | None = None
    default_timeout_ns: int | None = None
    allow_timeout_override: bool | None = None
    timeout_action: TimeoutAction | None = None
    priority_levels: int | None = None
    default_priority: int | None = None
    priority_queues: Mapping[int, QueuePolicy] = field(default_factory=dict)
    warmup: Warmup | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    served_outputs: tuple[str, ...] = ()
    version_policy: VersionPolicy | None = None
    swap: Swap | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    tuned: Tuned | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)

    @property
    def custom_engine(self) -> bool:
        """The engine is somebody's own function, so the model may be any file."""
        return self.engine is not None and ":" in self.engine


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file of a model's configuration says.

    Attributes:
        config: Without what is wrong.
        notices: In the order of the file.
    """

    config: ModelConfig
    notices: tuple[Notice, ...] = ()

    @property
    def usable(self) -> bool:
        """No notice is an error."""
        return all(notice.severity != "error" for notice in self.notices)


def overlay(below: ModelConfig, above: ModelConfig) -> ModelConfig:
    """Both configurations in one; where both say something, the upper one holds.

    Parameters of the engine are one setting each, and so are labels, and what is said of a tensor.
    """
    said = {
        entry.name: value
        for entry in fields(above)
        if (value := getattr(above, entry.name)) not in (None, (), {})
    }
    said["parameters"] = {**below.parameters, **above.parameters}
    said["labels"] = {**below.labels, **above.labels}
    said["inputs"] = _overlay_tensors(below.inputs, above.inputs)
    said["outputs"] = _overlay_tensors(below.outputs, above.outputs)
    said["origins"] = {**below.origins, **above.origins}
    return replace(below, **said)


def _overlay_tensors(
    below: tuple[TensorConfig, ...], above: tuple[TensorConfig, ...]
) -> tuple[TensorConfig, ...]:
    tensors = {tensor.name: tensor for tensor in below}
    for tensor in above:
        said = {entry.name: getattr(tensor, entry.name) for entry in fields(tensor)}
        said = {name: value for name, value in said.items() if value not in (None, False)}
        tensors[tensor.name] = replace(tensors.get(tensor.name, tensor), **said)
    return tuple(tensors.values())


def reshaped(actual: tuple[int, ...], declared: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """A tensor's shape on the other side of a reshape.

    Args:
        actual: Its shape on this side.
        declared: What this side declares, -1 where a dimension may vary.
        other: What the other side declares, with as many -1.
    """
    varying = iter([size for size, promised in zip(actual, declared, strict=True) if promised == -1])
    return tuple(next(varying) if promised == -1 else promised for promised in other)


def check_label(label: str) -> None:
    """Raise ValueError unless a version can be called this."""
    if not _LABEL.fullmatch(label):
        raise ValueError(
            f"{label!r} cannot be a label: take letters, digits, '_', '.' and '-', at most 64, not digits alone"
        )


def contradictions(config: ModelConfig) -> tuple[Notice, ...]:
    """What is wrong between settings that are right by themselves; `line` is for the caller to know."""
    found: list[Notice] = []
    if config.max_batch_size is not None:
        found += [
            Notice(
                None,
                "preferred_batch_sizes",
                f"{preferred} is more than the max_batch_size of {config.max_batch_size}",
                "lower it, or raise max_batch_size",
            )
            for preferred in config.preferred_batch_sizes
            if preferred > config.max_batch_size
        ]
    if config.served_outputs:
        listed = ", ".join(map(repr, config.served_outputs))
        found += [
            Notice(None, "outputs", f"output {output.name!r} is not served: config.pbtxt lists {listed}")
            for output in config.outputs
            if output.name not in config.served_outputs
        ]
    levels = config.priority_levels or 0
    if config.default_priority is not None and config.default_priority > levels:
        limit = f"the lowest of priority_levels is {levels}" if levels else "priority_levels is not set"
        found.append(Notice(None, "default_priority", f"{config.default_priority} is no priority: {limit}"))
    found += [
        Notice(None, "priority_queues", f"{level} is no priority: the lowest of priority_levels is {levels}")
        for level in config.priority_queues
        if not 1 <= level <= levels
    ]
    return tuple(found)
