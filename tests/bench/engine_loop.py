"""The yardstick of served throughput: processes that run a library in a loop, without a server and without predictd.

It is called as its own documentation says, with as many threads as it is told, or as it likes.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from predictd.engines.api import Array

Run = Callable[[Mapping[str, "Array"]], object]


class Load(msgspec.Struct, kw_only=True):
    """Said first.

    Attributes:
        rows: An .npz file with rows of each input: NUMBER/NAME.
        threads: None takes what the library takes by itself.
    """

    engine: str
    path: str
    rows: str
    threads: int | None = None


class Loaded(msgspec.Struct):
    """The model is ready to run."""


class Loop(msgspec.Struct):
    """Run batches for so long, each of one row so many times, after one of each row that is not counted."""

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


_LIBRARIES: Mapping[str, Callable[[Load], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def _loop(run: Run, rows: Sequence[Mapping[str, Array]], loop: Loop) -> Ran:
    batches = [
        {name: np.repeat(array, loop.rows, axis=0) for name, array in row.items()} if loop.rows > 1 else row
        for row in rows
    ]
    cpu = time.process_time()
    for batch in batches:
        run(batch)
    runs = 0
    turns = itertools.cycle(batches)
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < loop.seconds:
        run(next(turns))
        runs += 1
    return Ran(runs * loop.rows, elapsed, time.process_time() - cpu)


def _read(file: Mapping[str, Array]) -> list[dict[str, Array]]:
    rows: dict[str, dict[str, Array]] = {}
    for key, array in file.items():
        number, _, name = key.partition("/")
        rows.setdefault(number, {})[name] = array
    return list(rows.values())


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main(lines: Iterable[str]) -> None:
    """Serve commands until standard input ends."""
    feed = iter(lines)
    load = msgspec.json.decode(next(feed), type=Load)
    with np.load(load.rows) as file:
        rows = _read(file)
    run = _LIBRARIES[load.engine](load)
    _say(Loaded())
    for line in feed:
        _say(_loop(run, rows, msgspec.json.decode(line, type=Loop)))


if __name__ == "__main__":
    main(sys.stdin)
