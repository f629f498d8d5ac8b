"""One slot of the pipeline: a stream, a context for each profile, and memory of its own.

```
          begin                                         finish
inputs ─► pinned copy ─► GPU ─► TensorRT ─► GPU ─► pinned copy ─► outputs
          (none where the       (or a CUDA
          input is pinned)       graph)
          └────────── the slot's stream ──────────┘
```

`begin` returns while the GPU works. Until `finish`, nothing of the slot may be used, and the inputs must stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predictd.engines.api import Array, DeviceLostError, EngineError, InvalidInputError
from predictd.engines.tensorrt.bindings import Bindings, Log
from predictd.engines.tensorrt.buffers import DeviceBuffer, PinnedBuffer, as_bytes
from predictd.engines.tensorrt.device import Gpu
from predictd.engines.tensorrt.driver import failure
from predictd.engines.tensorrt.graphs import Graphs
from predictd.engines.tensorrt.outputs import make_allocator
from predictd.engines.tensorrt.shapes import Profile, Shape, choose, misfit
from predictd.engines.tensorrt.signature import Description, Port


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A deserialized plan and what belongs to it.

    Attributes:
        engine: TensorRT's.
        log: What TensorRT says.
    """

    gpu: Gpu
    bindings: Bindings
    engine: Any
    description: Description
    log: Log

    def failed(self, what: str) -> EngineError:
        """The error of a call that gave None, False or -1."""
        return failure(f"TensorRT failed to {what}", self.log.reason())


@dataclass(slots=True)
class _Memory:
    """What a slot has for one input or output."""

    device: DeviceBuffer
    pinned: PinnedBuffer
    allocator: Any = None
    shape: Shape | None = field(default=None)


class Slot:
    """A slot. Every method needs the context to be current.

    Args:
        plan: What it runs.
        graphs: Record CUDA graphs where the plan allows it.
        spin: Wait for the GPU busily.
    """

    def __init__(self, plan: LoadedPlan, *, graphs: bool, spin: bool) -> None:
        cuda = plan.gpu.driver.cuda
        calls = plan.gpu.driver.calls
        self._plan = plan
        self._cuda = cuda
        ports = (*plan.description.inputs, *plan.description.outputs)
        self._names = [port.name for port in plan.description.inputs]
        self._memory = {port.name: _Memory(DeviceBuffer(cuda), PinnedBuffer(cuda)) for port in ports}
        # Not the default stream, which waits for all others and they for it.
        self._stream = cuda.Stream(int(calls.CUstream_flags.CU_STREAM_NON_BLOCKING))
        flags = cuda.event_flags.DISABLE_TIMING
        self._done = cuda.Event(flags if spin else flags | cuda.event_flags.BLOCKING_SYNC)
        # The values of a shape in host memory are read when a run is put into the stream, not when it runs.
        recordable = graphs and not any(port.on_host for port in ports)
        self._graphs = Graphs(plan.gpu.driver, self._stream, enabled=recordable)
        self._contexts: dict[int, Any] = {}
        try:
            self._make_ready()
        except BaseException:
            self.close()
            raise

    def begin(self, inputs: Sequence[Array]) -> None:
        """Put a run into the stream: copy in, compute, copy out.

        Raises:
            InvalidInputError: No profile takes these shapes.
            EngineError: TensorRT or CUDA failed.
        """
        shapes = [array.shape for array in inputs]
        profiles = self._plan.description.profiles
        profile = choose(profiles, shapes)
        if profile is None:
            raise InvalidInputError(misfit(self._names, profiles, shapes))
        self._plan.log.clear()
        context = self._contexts[profile.index]
        for port, array in zip(self._plan.description.inputs, inputs, strict=True):
            self._copy_in(context, port, array)
        varying = self._place_outputs(context)
        if varying:
            self._enqueue(context)
        else:
            self._graphs.run((profile.index, tuple(shapes)), lambda: self._enqueue(context))
        for port in self._plan.description.outputs:
            self._copy_out(port)
        self._done.record(self._stream)

    def finish(self, targets: Sequence[Array | None]) -> list[Array]:
        """Wait for the run and fetch its outputs.

        Args:
            targets: For each output where it goes, None for an array of its own.
        """
        self._done.synchronize()
        ports = self._plan.description.outputs
        late = [port for port in ports if self._memory[port.name].allocator is not None]
        for port in late:
            self._copy_late(port)
        if late:
            self._stream.synchronize()
        return [self._fetch(port, target) for port, target in zip(ports, targets, strict=True)]

    def drain(self) -> None:
        """Wait until nothing of the slot is in use, after a failure."""
        self._stream.synchronize()

    def close(self) -> None:
        """Give everything back."""
        self._graphs.clear()
        self._contexts.clear()
        for memory in self._memory.values():
            memory.device.free()
            memory.pinned.free()
            if memory.allocator is not None:
                memory.allocator.buffer.free()

    def _make_ready(self) -> None:
        description = self._plan.description
        for profile in description.profiles:
            self._contexts[profile.index] = self._make_context(profile)
        if not any(port.on_host for port in description.inputs):
            for profile in description.profiles:
                self._reserve(profile)

    def _make_context(self, profile: Profile) -> Any:
        plan = self._plan
        plan.log.clear()
        context = plan.engine.create_execution_context()
        if context is None:
            raise plan.failed("create an execution context")
        chosen = context.set_optimization_profile_async(profile.index, self._stream.handle)
        if not chosen:
            raise plan.failed(f"choose profile {profile.index}")
        self._stream.synchronize()
        return context

    def _reserve(self, profile: Profile) -> None:
        """Have memory for the largest batch before the first request, and addresses that do not change."""
        context = self._contexts[profile.index]
        for port, part in zip(self._plan.description.inputs, profile.ranges, strict=True):
            self._memory[port.name].device.ensure(_size_bytes(port, part.most))
            self._set_shape(context, port, part.most)
            self._set_address(context, port, self._memory[port.name].device.address)
        self._place_outputs(context)

    def _copy_in(self, context: Any, port: Port, array: Array) -> None:
        memory = self._memory[port.name]
        self._set_shape(context, port, array.shape)
        source = as_bytes(array)
        if port.on_host or not self._plan.gpu.is_pinned(array):
            pinned = memory.pinned.view(max(array.nbytes, 1))
            np.copyto(pinned[: array.nbytes], source)
            source = pinned[: array.nbytes]
            if port.on_host:
                self._set_address(context, port, pinned.ctypes.data)
                return
        if memory.device.ensure(array.nbytes):
            self._graphs.clear()
        self._set_address(context, port, memory.device.address)
        if array.nbytes:
            self._cuda.memcpy_htod_async(memory.device.address, source, self._stream)

    def _place_outputs(self, context: Any) -> bool:
        """Give every output its memory. Whether TensorRT will ask for some while it runs."""
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise self._input_error(" ".join(str(error).split())) from error
        if missing:
            raise self._input_error(f"it wants to know more of {', '.join(map(repr, missing))}")
        varying = False
        for port in self._plan.description.outputs:
            memory = self._memory[port.name]
            shape = tuple(context.get_tensor_shape(port.name))
            if min(shape, default=0) < 0:
                varying = True
                self._give_allocator(context, port, memory)
                continue
            memory.shape = shape
            size_bytes = _size_bytes(port, shape)
            if port.on_host:
                self._set_address(context, port, memory.pinned.view(max(size_bytes, 1)).ctypes.data)
                continue
            if memory.device.ensure(size_bytes):
                self._graphs.clear()
            self._set_address(context, port, memory.device.address)
        return varying

    def _give_allocator(self, context: Any, port: Port, memory: _Memory) -> None:
        if memory.allocator is None:
            memory.allocator = make_allocator(self._plan.bindings.trt, self._cuda)
        memory.allocator.begin()
        if not context.set_output_allocator(port.name, memory.allocator):
            raise self._plan.failed(f"take an allocator for output {port.name!r}")

    def _enqueue(self, context: Any) -> None:
        done = context.execute_async_v3(self._stream.handle)
        for port in self._plan.description.outputs:
            allocator = self._memory[port.name].allocator
            if allocator is not None and allocator.error is not None:
                raise failure(f"no GPU memory for output {port.name!r}", str(allocator.error))
        if not done:
            raise self._plan.failed("run the plan")

    def _copy_out(self, port: Port) -> None:
        memory = self._memory[port.name]
        if port.on_host or memory.allocator is not None or memory.shape is None:
            return
        size_bytes = _size_bytes(port, memory.shape)
        if size_bytes:
            pinned = memory.pinned.view(size_bytes)
            self._cuda.memcpy_dtoh_async(pinned, memory.device.address, self._stream)

    def _copy_late(self, port: Port) -> None:
        """An output of which only now is known how large it is."""
        memory = self._memory[port.name]
        memory.shape = memory.allocator.shape
        if memory.shape is None:
            raise self._plan.failed(f"tell the shape of output {port.name!r}")
        size_bytes = _size_bytes(port, memory.shape)
        if size_bytes:
            pinned = memory.pinned.view(size_bytes)
            self._cuda.memcpy_dtoh_async(pinned, memory.allocator.buffer.address, self._stream)

    def _fetch(self, port: Port, target: Array | None) -> Array:
        memory = self._memory[port.name]
        if memory.shape is None:
            raise EngineError(f"output {port.name!r} has no shape after a run. This is a bug.")
        found = memory.pinned.view(_size_bytes(port, memory.shape)).view(port.spec.dtype.numpy)
        found = found.reshape(memory.shape)
        if target is None or target.shape != memory.shape:
            return found.copy()
        np.copyto(target, found)
        return target

    def _set_shape(self, context: Any, port: Port, shape: Shape) -> None:
        if not context.set_input_shape(port.name, shape):
            raise self._input_error(f"input {port.name!r} of shape {list(shape)}: {self._plan.log.reason()}")

    def _set_address(self, context: Any, port: Port, address: int) -> None:
        if not context.set_tensor_address(port.name, address):
            raise self._plan.failed(f"take the address of {port.name!r}")

    def _input_error(self, reason: str) -> EngineError:
        error = failure("TensorRT refuses the inputs", reason)
        # A device that is lost refuses everything.
        return error if isinstance(error, DeviceLostError) else InvalidInputError(str(error))


def _size_bytes(port: Port, shape: Shape) -> int:
    return math.prod(shape) * port.spec.dtype.itemsize
