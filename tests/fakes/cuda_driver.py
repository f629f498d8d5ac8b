"""`cuda.bindings.driver`, as far as the product uses it, on a `World`. Every call gives a tuple, its error first."""

from __future__ import annotations

import enum
import types
from typing import Any

from tests.fakes.gpu import FakeStream, Operation, World, demand


class CUresult(enum.IntEnum):
    """As CUDA's, a few of them."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712
    CUDA_ERROR_NOT_SUPPORTED = 801
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUdevice_attribute(enum.IntEnum):  # noqa: N801 - CUDA's name
    """As CUDA's."""

    CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED = 113


class CUstream_flags(enum.IntEnum):  # noqa: N801 - CUDA's name
    """As CUDA's."""

    CU_STREAM_NON_BLOCKING = 1


class CUstreamCaptureMode(enum.IntEnum):
    """As CUDA's."""

    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


def make(world: World) -> types.ModuleType:
    """The module."""
    good = CUresult.CUDA_SUCCESS

    class CUstream:
        def __init__(self, handle: int) -> None:
            self.fake: FakeStream = world.stream(handle)

    def cuDeviceGetAttribute(attribute: int, _device: int) -> tuple[Any, ...]:  # noqa: N802
        demand(
            attribute == CUdevice_attribute.CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, "unknown"
        )
        return good, int(world.registers_read_only)

    def cuMemHostRegister(start: int, size_bytes: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        world.need_context()
        demand(flags == 8 | 1, "read-only memory is registered as such, for all contexts")
        if not world.registers_read_only:
            return (CUresult.CUDA_ERROR_NOT_SUPPORTED,)
        if start in world.registered:
            return (CUresult.CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,)
        world.registered[start] = size_bytes
        return (good,)

    def cuMemHostUnregister(start: int) -> tuple[Any, ...]:  # noqa: N802
        world.need_context()
        demand(start in world.registered, "memory unregistered that is not registered")
        demand(not world.in_flight(start, world.registered[start]), "memory unregistered in flight")
        del world.registered[start]
        return (good,)

    def cuStreamBeginCapture(stream: CUstream, mode: int) -> tuple[Any, ...]:  # noqa: N802
        world.need_context()
        demand(mode == CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, "other threads are captured")
        demand(stream.fake.captured is None, "a capture within a capture")
        stream.fake.captured = []
        return (good,)

    def cuStreamEndCapture(stream: CUstream) -> tuple[Any, ...]:  # noqa: N802
        captured, stream.fake.captured = stream.fake.captured, None
        demand(captured is not None, "the end of a capture that was not begun")
        if world.capture_error:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 0
        number = world.address()
        world.graphs[number] = captured or []
        return good, number

    def cuGraphInstantiate(graph: int, _flags: int) -> tuple[Any, ...]:  # noqa: N802
        number = world.address()
        world.graphs[number] = world.graphs[graph]
        return good, number

    def cuGraphLaunch(graph: int, stream: CUstream) -> tuple[Any, ...]:  # noqa: N802
        world.need_context()
        if world.lost:
            return (CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,)
        for operation in world.graphs[graph]:
            world.put(stream.fake, Operation("graph", operation.act))
        return (good,)

    def destroy(graph: int) -> tuple[Any, ...]:
        demand(graph in world.graphs, "a graph destroyed twice")
        del world.graphs[graph]
        return (good,)

    module = types.ModuleType("cuda.bindings.driver")
    for member in (
        CUstream, cuDeviceGetAttribute, cuMemHostRegister, cuMemHostUnregister, cuStreamBeginCapture,
        cuStreamEndCapture, cuGraphInstantiate, cuGraphLaunch, CUdevice_attribute, CUstream_flags, CUstreamCaptureMode,
        CUresult,
    ):  # fmt: skip
        setattr(module, member.__name__, member)
    vars(module).update(
        cuGraphDestroy=destroy,
        cuGraphExecDestroy=destroy,
        CU_MEMHOSTREGISTER_READ_ONLY=8,
        CU_MEMHOSTREGISTER_PORTABLE=1,
    )
    return module
