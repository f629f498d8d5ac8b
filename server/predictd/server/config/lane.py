"""What one served model version is, as the supervisor tells it to front ends and workers."""

from __future__ import annotations

import msgspec

from predictd.server.config.model_config import TensorConfig, Warmup


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
        threads: Threads of one run.
        parameters: Engine-specific settings.
        labels: Names that clients may use instead of the version.
        inputs: What the model's configuration says of inputs.
        outputs: The same of outputs.
        warmup: What to run before the model is served; None for zeros at each batch size.
        origins: Where `inputs`, `outputs` and `warmup` stand, for messages.
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
    threads: int
    parameters: dict[str, str]
    labels: tuple[str, ...] = ()
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    warmup: Warmup | None = None
    origins: dict[str, str] = msgspec.field(default_factory=dict)


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
