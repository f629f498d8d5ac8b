"""The engine: a plan on one GPU, run slot by slot.

Theory of operation. A run is put into a stream and waited for, so a batch alone cannot copy while it computes. A large
batch whose rows are independent is therefore cut into parts that take turns on two slots: while one part computes, the
next is copied in and the one before is copied out. Small batches are not cut, for what a second launch costs is more
than what their copies take. Between batches, the workers of a pool on the same GPU overlap each other.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predictd.engines.api import (
    Array,
    DeviceLostError,
    EngineError,
    EngineOptions,
    InvalidInputError,
    LoadCancelledError,
    ModelLoadError,
    Signature,
)
from predictd.engines.tensorrt.bindings import Bindings, load_bindings
from predictd.engines.tensorrt.device import Gpu, close_gpu, open_gpu, parse_device, plan_for
from predictd.engines.tensorrt.driver import load_driver
from predictd.engines.tensorrt.parameters import Parameters, read_parameters
from predictd.engines.tensorrt.plan_file import carries_code, why_refused
from predictd.engines.tensorrt.plan_source import open_plan
from predictd.engines.tensorrt.shapes import Profile, slices
from predictd.engines.tensorrt.signature import Port, describe
from predictd.engines.tensorrt.slot import LoadedPlan, Slot

_log = logging.getLogger(__name__)

# Copied in a third of a millisecond at 25 GB/s, about ten times what putting one more run into a stream takes.
WORTH_CUTTING_BYTES = 8 << 20


def load(path: Path, options: EngineOptions) -> TensorRtEngine:
    """Load a plan, or an ONNX model with its plan. Raises ModelLoadError, one line that begins with the path."""
    try:
        parameters = read_parameters(options.parameters)
        index = parse_device(options.device)
        bindings = load_bindings(parameters.bindings)
        # Before anything of TensorRT's runtime, which ends the process where there is no driver.
        driver = load_driver()
        path = plan_for(driver, index, path, options.files_by_capability)
        gpu = open_gpu(driver, index)
        try:
            with open_plan(path, options, bindings, index) as plan:
                return _load_on(gpu, bindings, plan, parameters, options)
        except BaseException:
            close_gpu(gpu)
            raise
    except LoadCancelledError:
        raise
    except EngineError as error:
        raise ModelLoadError(f"{path}: {error}") from error


def _load_on(
    gpu: Gpu, bindings: Bindings, path: Path, parameters: Parameters, options: EngineOptions
) -> TensorRtEngine:
    with gpu.current():
        plan = _deserialize(gpu, bindings, path)
        if options.cancel.is_set:
            raise LoadCancelledError("the load was given up")
        slots = [Slot(plan, graphs=_recordable(plan.engine, parameters), spin=options.spin)]
    if parameters.parts > 1 and plan.description.signature.batches:
        try:
            with gpu.current():
                slots.append(Slot(plan, graphs=_recordable(plan.engine, parameters), spin=options.spin))
        except DeviceLostError:
            raise
        except EngineError as error:
            # No memory for it, or a version whose contexts cannot share a profile: one is enough to serve.
            _log.warning("%s: batches are not cut to overlap: %s", path, error)
    return TensorRtEngine(plan, slots, parameters.parts)


def _deserialize(gpu: Gpu, bindings: Bindings, path: Path) -> LoadedPlan:
    log = bindings.new_log()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            runtime = bindings.trt.Runtime(log.logger)
            if runtime is not None and carries_code(path):
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(content) if runtime is not None else None
    except OSError as error:
        raise ModelLoadError(error.strerror or str(error)) from error
    except ValueError as error:  # of mmap
        raise ModelLoadError("the file is empty") from error
    if engine is None:
        raise ModelLoadError(
            f"{bindings.label} cannot use this plan on GPU {gpu.index} ({log.reason()}): "
            f"{why_refused(path, bindings.flavour, bindings.version)}"
        )
    return LoadedPlan(gpu, bindings, engine, describe(bindings.trt, engine), log)


def _recordable(engine: Any, parameters: Parameters) -> bool:
    # With weights that stream, putting a run into the stream waits, and that cannot be recorded.
    streams = getattr(engine, "streamable_weights_size", 0) > 0
    return parameters.cuda_graphs and not streams


class TensorRtEngine:
    """A loaded plan."""

    def __init__(self, plan: LoadedPlan, slots: Sequence[Slot], parts: int) -> None:
        self._plan = plan
        self._slots = list(slots)
        self._parts = parts
        self._description = plan.description
        signature = plan.description.signature
        most = max(profile.most_rows for profile in plan.description.profiles) if signature.batches else None
        self._signature = Signature(signature.inputs, signature.outputs, signature.batches, most)

    @property
    def name(self) -> str:
        """`tensorrt`."""
        return "tensorrt"

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self._signature

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch, as `Engine.run` says."""
        given = self._checked(inputs)
        targets = [None] * len(self._description.outputs) if out is None else list(out)
        with self._plan.gpu.current():
            return self._run_parts(given, [slice(None)], [targets])[0]

    def run_rows(
        self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """Compute a batch of independent rows, as `RunsRows.run_rows` says."""
        given = self._checked(inputs)
        parts = self._cut(given)
        if len(parts) == 1:
            return self.run(inputs, out)
        count = len(self._description.outputs)
        whole = [None] * count if out is None else list(out)
        targets = [[None if array is None else array[part] for array in whole] for part in parts]
        with self._plan.gpu.current():
            results = self._run_parts(given, parts, targets)
        return [
            _joined(whole[at], [target[at] for target in targets], [result[at] for result in results])
            for at in range(count)
        ]

    def register_host(self, memory: Array) -> bool:
        """Pin memory that inputs may lie in, as `RegistersHost.register_host` says."""
        return self._plan.gpu.pin(memory)

    def unregister_host(self, memory: Array) -> None:
        """Undo `register_host`."""
        self._plan.gpu.unpin(memory)

    def close(self) -> None:
        """Release the plan and its memory."""
        gpu = self._plan.gpu
        try:
            # A lost device frees everything by itself, and says so to every call.
            with contextlib.suppress(DeviceLostError), gpu.current():
                for slot in self._slots:
                    slot.close()
                self._slots.clear()
                # TensorRT frees with the last reference, and wants its context for that.
                del self._plan
        finally:
            close_gpu(gpu)

    def _checked(self, inputs: Sequence[Array | None]) -> list[Array]:
        return [_checked(port, array) for port, array in zip(self._description.inputs, inputs, strict=True)]

    def _cut(self, inputs: Sequence[Array]) -> list[slice]:
        """The parts of a batch: as many as it needs to fit, and as help it to overlap."""
        most = self._signature.max_rows
        if most is None:
            return [slice(None)]
        rows = inputs[0].shape[0]
        needed = slices(rows, most)
        if len(self._slots) == 1 or sum(array.nbytes for array in inputs) < WORTH_CUTTING_BYTES:
            return needed
        wanted = slices(rows, max(1, -(-rows // self._parts)))
        shortest = min(part.stop - part.start for part in wanted)
        fits = any(_fits(profile, shortest) for profile in self._description.profiles)
        return wanted if fits and len(wanted) > len(needed) else needed

    def _run_parts(
        self, inputs: Sequence[Array], parts: Sequence[slice], targets: Sequence[Sequence[Array | None]]
    ) -> list[list[Array]]:
        running: deque[tuple[Slot, Sequence[Array | None]]] = deque()
        results: list[list[Array]] = []
        try:
            for number, (part, target) in enumerate(zip(parts, targets, strict=True)):
                if len(running) == len(self._slots):
                    results.append(_finish(running))
                slot = self._slots[number % len(self._slots)]
                running.append((slot, target))
                slot.begin([array[part] for array in inputs] if len(parts) > 1 else inputs)
            while running:
                results.append(_finish(running))
        except DeviceLostError:
            raise
        except BaseException:
            # The inputs are the caller's again, and the slots the next run's.
            for slot, _ in running:
                slot.drain()
            raise
        return results


def _finish(running: deque[tuple[Slot, Sequence[Array | None]]]) -> list[Array]:
    slot, target = running[0]
    result = slot.finish(target)
    running.popleft()
    return result


def _fits(profile: Profile, rows: int) -> bool:
    return profile.least_rows <= rows <= profile.most_rows


def _joined(whole: Array | None, views: Sequence[Array | None], parts: Sequence[Array]) -> Array:
    used = whole is not None and all(part is view for part, view in zip(parts, views, strict=True))
    return whole if used and whole is not None else np.concatenate(parts)


def _checked(port: Port, array: Array | None) -> Array:
    if array is None:
        raise InvalidInputError(f"input {port.name!r} is missing")
    # The call below reads neither strides nor dtype: without this check it would copy other bytes.
    if array.dtype != port.spec.dtype.numpy or not array.flags.c_contiguous:
        raise ValueError(
            f"{port.name!r} must be a C-contiguous array of {port.spec.dtype.numpy}. This is a bug."
        )
    return array
