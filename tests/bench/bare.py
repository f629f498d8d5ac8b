"""The yardstick of served throughput: a process that runs `session.run` in a loop on all CPUs at hand."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
import onnxruntime

from tests.bench import proc
from tests.bench.children import Child

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 60.0
_ANSWER_SECONDS = 60.0


class Loaded(msgspec.Struct):
    """Said once: the model is ready to run."""


class Loop(msgspec.Struct):
    """Run batches of so many rows for so long, after one that is not counted."""

    rows: int
    seconds: float


class Ran(msgspec.Struct):
    """Whole runs, how long they took, and the CPU time of the process meanwhile."""

    rows: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class BareResult:
    """One measurement.

    Attributes:
        per_second: Rows a second.
        foreign_cpus: CPUs that were busy with other processes, the idle daemon among them.
    """

    per_second: float
    foreign_cpus: float


class BareLoop:
    """The process, seen from outside."""

    def __init__(self, model: Path) -> None:
        self._child = Child(__name__, str(model))
        try:
            self._child.hear(Loaded, _START_SECONDS)
        except BaseException:
            self._child.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    def measure(self, rows: int, seconds: float) -> BareResult:
        """Run batches of so many rows for so long."""
        machine = proc.machine_busy_seconds()
        self._child.tell(Loop(rows, seconds))
        ran = self._child.hear(Ran, seconds + _ANSWER_SECONDS)
        foreign = proc.machine_busy_seconds() - machine - ran.cpu_seconds
        return BareResult(ran.rows / ran.seconds, max(0.0, foreign) / ran.seconds)


def _loop(session: Any, loop: Loop) -> Ran:
    (spec,) = session.get_inputs()
    batch = np.random.default_rng(0).standard_normal((loop.rows, *spec.shape[1:]), np.float32)
    cpu = time.process_time()
    session.run(None, {spec.name: batch})
    runs = 0
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < loop.seconds:
        session.run(None, {spec.name: batch})
        runs += 1
    return Ran(runs * loop.rows, elapsed, time.process_time() - cpu)


def main() -> None:
    """Serve commands until standard input ends."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = proc.cpus()
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    sys.stdout.buffer.write(msgspec.json.encode(Loaded()) + b"\n")
    sys.stdout.buffer.flush()
    for line in sys.stdin:
        ran = _loop(session, msgspec.json.decode(line, type=Loop))
        sys.stdout.buffer.write(msgspec.json.encode(ran) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
