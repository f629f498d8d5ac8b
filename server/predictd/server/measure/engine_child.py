"""A process that runs one engine, placed and told as a worker is: `python -m … FD PARENT_PID`."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from predictd.engines.api import (
    Array,
    DType,
    Engine,
    EngineError,
    ProfiledEngine,
    RunTimings,
    Signature,
    TensorSpec,
    TimedEngine,
)
from predictd.engines.cache import CacheFolder
from predictd.engines.cancellation import Cancellation
from predictd.engines.heap import trim_heap
from predictd.engines.registry import resolve
from predictd.server.config.lane import LaneSignature, WireTensor
from predictd.server.launch.spawn import die_with_parent
from predictd.server.measure.messages import (
    Answer,
    Answered,
    Command,
    Failed,
    Layer,
    Load,
    Loaded,
    Profile,
    Profiled,
    Reply,
    Stages,
    Take,
    Taken,
    Time,
    Timed,
)
from predictd.server.worker.lanes import batches_indeed, engine_options
from predictd.server.worker.scatter import fixed_layout
from predictd.server.worker.strings import encode_strings
from predictd.server.worker.warmup import inputs_in_order


class Runs:
    """The engine, and what it is run with."""

    def __init__(self, engine: Engine, signature: Signature, lane: int) -> None:
        self._engine = engine
        self._signature = signature
        self._lane = lane
        self._inputs: Sequence[Array | None] = ()
        self._out: Sequence[Array | None] | None = None

    def do(self, command: Take | Time | Answer | Profile) -> Reply:
        """Do what was said."""
        match command:
            case Take(path=path):
                self.take(path)
                return Taken()
            case Time():
                return self.time(command)
            case Answer(path=path):
                self.answer(path)
                return Answered()
            case Profile():
                return self.profile(command)

    def take(self, path: str) -> None:
        """Read inputs, run them once, and have memory ready for the outputs where a worker would have."""
        with np.load(path, allow_pickle=False) as file:
            given = {self._signature.inputs[int(number)].name: file[number] for number in file.files}
        self._inputs = inputs_in_order(path, given, self._signature)
        results = self._engine.run(self._inputs)
        rows = results[0].shape[0] if self._signature.batches and results else 0
        fixed = rows and fixed_layout(self._lane, self._signature.outputs, rows) is not None
        self._out = [np.empty(each.shape, each.dtype) for each in results] if fixed else None

    def time(self, command: Time) -> Timed:
        """Run for a while."""
        took = array("q")
        run, inputs, out = self._engine.run, self._inputs, self._out
        after = self._stages()
        clock = time.monotonic_ns
        cpu_seconds = time.process_time()
        began = before = clock()
        end = began + int(command.seconds * 1e9)
        while True:
            run(inputs, out)
            now = clock()
            took.append(now - before)
            after.ran()
            before = clock()
            enough = now >= end and len(took) >= command.least_runs
            if (enough and command.seconds) or len(took) == command.most_runs:
                break
        cpu_seconds = time.process_time() - cpu_seconds
        if command.latencies:
            np.save(command.latencies, np.frombuffer(took, np.int64))
        return Timed(
            runs=len(took), seconds=(now - began) / 1e9, cpu_seconds=cpu_seconds, stages=after.mean(len(took))
        )

    def answer(self, path: str) -> None:
        """Run once, and write the outputs."""
        results = self._engine.run(self._inputs)
        arrays = zip(self._signature.outputs, results, strict=True)
        content: dict[str, Any] = {
            str(number): _written(spec, each) for number, (spec, each) in enumerate(arrays)
        }
        np.savez(path, **content)

    def profile(self, command: Profile) -> Profiled:
        """Run for a while, and ask which layers took the time."""
        engine = self._engine
        if not isinstance(engine, ProfiledEngine):
            raise EngineError(f"engine {engine.name} does not tell the time of its layers")
        engine.start_profile()
        timed = self.time(Time(seconds=command.seconds, most_runs=command.most_runs))
        layers = [Layer(each.name, each.kind, each.runs, each.seconds) for each in engine.profile()]
        return Profiled(layers=layers, runs=timed.runs)

    def _stages(self) -> _Stages:
        return _Stages(self._engine.timings if isinstance(self._engine, TimedEngine) else None)


class _Stages:
    """Adds up where the time went, for an engine that knows."""

    def __init__(self, timings: Callable[[], RunTimings] | None) -> None:
        self._timings = timings
        self._sums = [0.0] * 4

    def ran(self) -> None:
        """After each run."""
        if self._timings is not None:
            last = self._timings()
            parts = last.copy_in_seconds, last.enqueue_seconds, last.compute_seconds, last.copy_out_seconds
            self._sums = [sum_ + part for sum_, part in zip(self._sums, parts, strict=True)]

    def mean(self, runs: int) -> Stages | None:
        """Of all runs."""
        return None if self._timings is None else Stages(*(each / runs for each in self._sums))


def _written(spec: TensorSpec, result: Array) -> Array:
    if spec.dtype is DType.BF16:
        return (result.astype(np.uint32) << 16).view(np.float32)
    if spec.dtype is DType.BYTES:
        # With their lengths: NumPy's own strings do not tell whether one ends in zeros.
        return np.array([encode_strings([text])[0] for text in result.flat], "S").reshape(result.shape)
    return result


def load(command: Load) -> tuple[Runs, Loaded]:
    """Load a model as `predictd.server.worker.lanes.load_lane` does, without what is not the engine's."""
    directory, config = command.cache_directory, command.lane
    # To import the runtime takes as long for any model.
    load_engine = resolve(config.engine)
    began = time.monotonic()
    cache = CacheFolder(Path(directory), command.cache_limit_bytes) if directory else None
    options = engine_options(config, cache, command.instances, Cancellation())
    options = replace(options, profile=command.profile)
    engine = load_engine(Path(config.path), options)
    trim_heap()
    seconds = time.monotonic() - began
    signature = engine.signature
    if signature.batches and not batches_indeed(engine, signature):
        signature = replace(signature, batches=False)
    gc.collect()
    gc.freeze()
    loaded = Loaded(
        signature=LaneSignature(
            inputs=tuple(map(_wire, signature.inputs)),
            outputs=tuple(map(_wire, signature.outputs)),
            batches=signature.batches,
            max_rows=signature.max_rows,
            engine=engine.name,
        ),
        load_seconds=seconds,
        profiles=isinstance(engine, ProfiledEngine),
    )
    return Runs(engine, signature, config.lane), loaded


def _wire(spec: TensorSpec) -> WireTensor:
    return WireTensor(spec.name, int(spec.dtype), spec.shape, spec.optional)


def main() -> None:
    """Do what the parent says until it says nothing more."""
    descriptor, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent_pid)
    # The parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints is not the report.
    os.dup2(2, 1)
    decoder = msgspec.json.Decoder(Command)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        runs: Runs | None = None
        for line in stream:
            command = decoder.decode(line)
            reply: Reply
            try:
                if isinstance(command, Load):
                    runs, reply = load(command)
                elif runs is None:
                    raise TypeError(f"{type(command).__name__} before Load. This is a bug.")
                else:
                    reply = runs.do(command)
            except (EngineError, ValueError, MemoryError) as error:
                reply = Failed(reason=str(error) or "out of memory")
            except Exception as error:  # noqa: BLE001 - an engine of the user's own may raise anything
                reply = Failed(reason=f"{type(error).__name__}: {error}")
            stream.write(msgspec.json.encode(reply) + b"\n")
            stream.flush()


if __name__ == "__main__":
    main()
