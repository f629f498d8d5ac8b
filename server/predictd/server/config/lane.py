"""What one served model version is, as the supervisor tells it to front ends and workers."""

from __future__ import annotations

import msgspec


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


class WireTensor(msgspec.Struct, frozen=True):
    """A TensorSpec as it travels between processes. `dtype` is a value of `predictd.engines.api.DType`."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    optional: bool = False


class LaneSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker found in the model.

    Attributes:
        inputs: In engine order.
        outputs: In engine order.
        batches: Rows of several requests may share a run.
        max_rows: The engine's hard limit of rows in one run, None if it has none.
        engine: The runtime's name.
    """

    inputs: tuple[WireTensor, ...]
    outputs: tuple[WireTensor, ...]
    batches: bool
    max_rows: int | None
    engine: str
