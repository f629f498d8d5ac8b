"""`tensorrt`, as far as a plan is run with it, on a `World`: it fails as TensorRT does, with None, False and log lines.

The versions differ in what they lack: `8.6` has the old way to ask for output memory and lets no two contexts share a
profile, `10` and `rtx` have the new ones.
"""

from __future__ import annotations

import enum
import types
from typing import Any

import numpy as np

from tests.fakes import plans
from tests.fakes.gpu import Operation, World, demand


class TensorIOMode(enum.Enum):
    """As TensorRT's."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    """As TensorRT's."""

    DEVICE = 0
    HOST = 1


class Severity(enum.Enum):
    """As TensorRT's."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


DataType = enum.Enum("DataType", list(plans.NUMPY))  # type: ignore[misc] # its members are data


class ILogger:
    """As TensorRT's."""

    Severity = Severity

    def __init__(self) -> None:
        self.constructed = True


class IOutputAllocator:
    """As TensorRT's."""

    def __init__(self) -> None:
        self.constructed = True


class Engine:
    """ICudaEngine."""

    def __init__(self, world: World, log: Any, spec: plans.PlanSpec, version: str) -> None:
        self.world, self.log, self.spec, self.version = world, log, spec, version
        self.tensors = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = max(1, len(spec.profiles))
        self.taken: dict[int, list[Context]] = {}
        if version != "8.6":
            self.streamable_weights_size = spec.streamable_bytes

    def get_tensor_name(self, at: int) -> str:
        return list(self.tensors)[at]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        is_input = self.tensors[name] in self.spec.inputs
        return TensorIOMode.INPUT if is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[self.tensors[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if self.tensors[name].host else TensorLocation.DEVICE

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return 1 if name in self.spec.extra.get("vectorized", "").split() else -1

    def get_tensor_format_desc(self, _name: str) -> str:
        return "Channel major FP16 format where C % 8 == 0"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        demand(self.get_tensor_mode(name) is TensorIOMode.INPUT, "only inputs have profile shapes")
        at = [tensor.name for tensor in self.spec.inputs].index(name)
        return list(self.spec.profiles[profile][at])

    def create_execution_context(self) -> Context | None:
        self.world.need_context()
        return Context(self)


class Context:
    """IExecutionContext."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.ran: set[Any] = set()
        self.stream: int | None = None

    def _fail(self, text: str) -> bool:
        logger = self.engine.log
        text = f"[executionContext.cpp::call::1] Error Code 3: API Usage Error ({text})"
        logger.log(Severity.ERROR, text)
        return False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.engine.world.stream(stream)
        owners = self.engine.taken.setdefault(profile, [])
        if owners and self.engine.version == "8.6":
            return self._fail(f"Profile {profile} has been chosen for another IExecutionContext")
        owners.append(self)
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        demand(self.profile is not None, "a shape before a profile")
        if self.engine.world.lost:
            return self._fail(self.engine.world.lost)
        declared = self.engine.tensors[name].shape
        if len(shape) != len(declared):
            return self._fail(f"{name} has {len(declared)} dimensions, not {len(shape)}")
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        demand(address != 0, f"no address for {name}")
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        demand(allocator.constructed, "an allocator whose base was not constructed")
        self.allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        return [t.name for t in self.engine.spec.inputs if -1 in t.shape and t.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = self.engine.tensors[name]
        if tensor in self.engine.spec.inputs:
            return self.shapes[name]
        if self.engine.spec.operation == "nonzero":
            return tensor.shape
        if self.engine.spec.operation == "repeat":
            x, times = self.engine.spec.inputs
            rows, width = self.shapes[x.name]
            count = int(self.engine.world.pinned[self.addresses[times.name]][:8].view(np.int64)[0])
            return (2,) if tensor.host else (rows * count, width)
        return self.shapes[self.engine.spec.inputs[0].name]

    def execute_async_v3(self, handle: int) -> bool:
        world, spec = self.engine.world, self.engine.spec
        world.need_context()
        stream = world.stream(handle)
        if self.stream is not None and self.stream != handle:
            demand(not world.streams[self.stream].waiting, "one context in two streams at a time")
        self.stream = handle
        if world.lost:
            return self._fail(f"CUDA error 700: CUDA_ERROR_ILLEGAL_ADDRESS: {world.lost}")
        if spec.fails:
            return self._fail(spec.fails)
        for at, tensor in enumerate(spec.inputs):
            demand(tensor.name in self.shapes and tensor.name in self.addresses, f"{tensor.name} is not set")
            ranges = spec.profiles[self.profile or 0][at] if spec.profiles else (tensor.shape,) * 3
            shape = self.shapes[tensor.name]
            demand(
                all(a <= b <= c for a, b, c in zip(ranges[0], shape, ranges[2], strict=True)),
                f"{tensor.name} has a shape that the profile does not take",
            )
        return self._start(world, stream)

    def _start(self, world: World, stream: Any) -> bool:
        spec = self.engine.spec
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        key = tuple(sorted(shapes.items()))
        if stream.captured is not None:
            demand(spec.operation != "nonzero", "a run recorded whose output shapes depend on the data")
            demand(key in self.ran, "a run recorded that was not run the plain way before")
            if world.capture_error:
                return self._fail(world.capture_error)
        self.ran.add(key)
        if spec.operation == "nonzero":
            # TensorRT learns the shape while it runs.
            stream.flush()
            return self._allocate(world, stream, shapes, addresses)
        for tensor in spec.outputs:
            demand(tensor.name in addresses, f"output {tensor.name} has no address")
            _memory(
                world, tensor, addresses[tensor.name], _nbytes(tensor, self.get_tensor_shape(tensor.name))
            )

        def run() -> None:
            for tensor, result in zip(spec.outputs, self._compute(world, shapes, addresses), strict=True):
                raw = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
                np.copyto(_memory(world, tensor, addresses[tensor.name], raw.nbytes), raw)

        world.put(stream, Operation("run", run))
        return True

    def _allocate(self, world: World, stream: Any, shapes: Any, addresses: Any) -> bool:
        (output,) = self.engine.spec.outputs
        (result,) = self._compute(world, shapes, addresses)
        allocator = self.allocators[output.name]
        if self.engine.version == "8.6":
            address = allocator.reallocate_output(output.name, 0, max(result.nbytes, 1), 256)
        else:
            address = allocator.reallocate_output_async(
                output.name, 0, max(result.nbytes, 1), 256, stream.handle
            )
        if address is None:
            return self._fail("allocation of an output failed")
        allocator.notify_shape(output.name, result.shape)
        raw = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        world.put(stream, Operation("run", lambda: np.copyto(world.at(address, raw.nbytes), raw)))
        return True

    def _compute(self, world: World, shapes: Any, addresses: Any) -> list[Any]:
        arrays = []
        for tensor in self.engine.spec.inputs:
            data = _memory(world, tensor, addresses[tensor.name], _nbytes(tensor, shapes[tensor.name]))
            arrays.append(data.view(plans.NUMPY[tensor.dtype]).reshape(shapes[tensor.name]))
        return plans.OPERATIONS[self.engine.spec.operation](*arrays)


def _memory(world: World, tensor: plans.Tensor, address: int, size_bytes: int) -> Any:
    if not tensor.host:
        return world.at(address, size_bytes)
    demand(address in world.pinned, f"{tensor.name} is read and written in host memory")
    return world.pinned[address][:size_bytes]


def _nbytes(tensor: plans.Tensor, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(plans.NUMPY[tensor.dtype]).itemsize


def make(world: World, version: str) -> types.ModuleType:
    """The module, of a version: `8.6`, `10` or `rtx`."""

    class Runtime:
        def __init__(self, log: Any) -> None:
            demand(log.constructed, "a logger whose base was not constructed")
            self._log = log

        def deserialize_cuda_engine(self, data: Any) -> Engine | None:
            world.need_context()
            try:
                spec = plans.decode(bytes(data))
            except ValueError:
                self._log.log(
                    Severity.ERROR,
                    "[runtime.cpp::check::48] Error Code 1: Serialization (Serialization assertion magic failed.)",
                )
                return None
            return Engine(world, self._log, spec, version)

    module = types.ModuleType("tensorrt")
    for member in (Runtime, ILogger, IOutputAllocator, TensorIOMode, TensorLocation, DataType):
        setattr(module, member.__name__, member)
    module.__dict__["__version__"] = {"8.6": "8.6.1", "10": "10.13.3.9", "rtx": "1.7.1.116"}[version]
    return module
