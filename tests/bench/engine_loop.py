"""The yardstick of served throughput: processes that run an engine in a loop, without a server.

"plain" is the library as its own documentation calls it, with as many threads as it is told, or as it likes;
"adapter" is the same library through predictd's engine, with the options that the launcher gives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from predictd.engines.api import Array

Run = Callable[[Mapping[str, "Array"]], object]


class Load(msgspec.Struct, kw_only=True):
    """Said first.

    Attributes:
        rows: An .npz file with one row of each input.
        threads: None takes what the library takes by itself.
        outputs: Name and shape of each, for an engine that has to be told.
    """

    engine: str
    kind: Literal["plain", "adapter"]
    path: str
    rows: str
    threads: int | None = None
    spin: bool = False
    outputs: list[tuple[str, list[int]]] = []


class Loaded(msgspec.Struct):
    """The model is ready to run."""


class Loop(msgspec.Struct):
    """Run batches of so many rows for so long, after one that is not counted."""

    rows: int
    seconds: float


class Ran(msgspec.Struct):
    """Whole runs, how long they took, and the CPU time of the process meanwhile."""

    rows: int
    seconds: float
    cpu_seconds: float


def _onnxruntime(load: Load) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if load.threads is not None:
        options.intra_op_num_threads = load.threads
    session: Any = onnxruntime.InferenceSession(load.path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, dict(batch))


def _openvino(load: Load) -> Run:
    import openvino

    core: Any = openvino.Core()
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    if load.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = str(load.threads)
    request = core.compile_model(load.path, "CPU", properties).create_infer_request()
    return lambda batch: request.infer(dict(batch), share_inputs=True)


def _torch(load: Load) -> Run:
    import torch

    if load.threads is not None:
        torch.set_num_threads(load.threads)
    model = torch.jit.load(load.path).eval()

    def run(batch: Mapping[str, Array]) -> object:
        with torch.inference_mode():
            return model(*(torch.frombuffer(a, dtype=torch.float32).reshape(a.shape) for a in batch.values()))

    return run


_PLAIN: Mapping[str, Callable[[Load], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def _adapter(load: Load, row: Mapping[str, Array]) -> Run:
    from predictd.engines.api import DType, EngineOptions, TensorSpec
    from predictd.engines.registry import resolve

    by_numpy = {dtype.numpy: dtype for dtype in DType}
    declared = tuple(
        TensorSpec(name, by_numpy[array.dtype], (-1, *array.shape[1:])) for name, array in row.items()
    )
    # TorchScript does not know what it takes.
    inputs, outputs = (declared, load.outputs) if load.engine == "torch" else ((), ())
    options = EngineOptions(
        threads=load.threads or 1,
        spin=load.spin,
        inputs=inputs,
        outputs=tuple(TensorSpec(name, DType.FP32, tuple(shape)) for name, shape in outputs),
    )
    engine = resolve(load.engine)(Path(load.path), options)
    names = [spec.name for spec in engine.signature.inputs]
    return lambda batch: engine.run([batch[name] for name in names])


def _loop(run: Run, row: Mapping[str, Array], loop: Loop) -> Ran:
    batch = {name: np.repeat(array, loop.rows, axis=0) for name, array in row.items()}
    cpu = time.process_time()
    run(batch)
    runs = 0
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < loop.seconds:
        run(batch)
        runs += 1
    return Ran(runs * loop.rows, elapsed, time.process_time() - cpu)


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main(lines: Iterable[str]) -> None:
    """Serve commands until standard input ends."""
    feed = iter(lines)
    load = msgspec.json.decode(next(feed), type=Load)
    with np.load(load.rows) as file:
        row = dict(file)
    run = _PLAIN[load.engine](load) if load.kind == "plain" else _adapter(load, row)
    _say(Loaded())
    for line in feed:
        _say(_loop(run, row, msgspec.json.decode(line, type=Loop)))


if __name__ == "__main__":
    main(sys.stdin)
