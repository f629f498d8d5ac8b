"""`pycuda.driver`, as far as the product uses it, on a `World`."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from tests.fakes.gpu import FakeStream, Operation, World, bytes_of, demand


class Error(Exception):
    """As pycuda's."""


class LogicError(Error):
    """As pycuda's."""


class OutOfMemoryError(Error, MemoryError):
    """`pycuda.driver.MemoryError`."""


class event_flags:  # noqa: N801 - pycuda's name
    """As pycuda's."""

    DEFAULT = 0
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2


def make(world: World) -> types.ModuleType:
    """The module."""

    def check() -> None:
        world.need_context()
        if world.lost:
            raise LogicError(f"cuCall failed: {world.lost}")

    class Context:
        def __init__(self, index: int) -> None:
            self._index = index

        def push(self) -> None:
            world.current.append(self._index)

        @staticmethod
        def pop() -> None:
            demand(bool(world.current), "a context popped that was not pushed")
            world.current.pop()

        def detach(self) -> None:
            demand(not world.current, "a context detached while one is current")
            world.contexts_made -= 1

    class Device:
        def __init__(self, index: int) -> None:
            demand(index < world.device_count, "a GPU that is not there")
            self._index = index

        @staticmethod
        def count() -> int:
            return world.device_count

        def compute_capability(self) -> tuple[int, int]:
            return (8, 9) if self._index else (9, 0)

        def retain_primary_context(self) -> Context:
            if world.lost:
                raise LogicError(f"cuDevicePrimaryCtxRetain failed: {world.lost}")
            world.contexts_made += 1
            return Context(self._index)

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            check()
            demand(flags == 1, "a stream that waits for the default stream")
            self.handle = world.address()
            self.fake = world.streams[self.handle] = FakeStream(self.handle)

        def synchronize(self) -> None:
            check()
            demand(self.fake.captured is None, "waiting for a stream that records")
            world.trace.append(("wait", self.handle))
            self.fake.flush()

    class Event:
        def __init__(self, flags: int = 0) -> None:
            check()
            demand(bool(flags & event_flags.DISABLE_TIMING), "an event that takes the time for nobody")
            self._stream: Stream | None = None
            self._count = 0

        def record(self, stream: Stream) -> Event:
            check()
            self._stream, self._count = stream, len(stream.fake.waiting)
            return self

        def synchronize(self) -> Event:
            check()
            if self._stream is None:
                return self
            world.trace.append(("wait", self._stream.handle))
            due = self._stream.fake.waiting[: self._count]
            del self._stream.fake.waiting[: self._count]
            for operation in due:
                operation.run()
            return self

    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            check()
            world.free(self._address)

    class HostAllocation:
        def __init__(self, size_bytes: int) -> None:
            self._data = np.zeros(size_bytes, np.uint8)
            self.start = self._data.ctypes.data
            self.__array_interface__ = self._data.__array_interface__
            world.pinned[self.start] = self._data

        def free(self) -> None:
            check()
            demand(not world.in_flight(self.start, self._data.nbytes), "pinned memory freed in flight")
            del world.pinned[self.start]

    def mem_alloc(size_bytes: int) -> DeviceAllocation:
        check()
        address = world.allocate(size_bytes)
        if address is None:
            raise OutOfMemoryError("cuMemAlloc failed: out of memory")
        return DeviceAllocation(address)

    def pagelocked_empty(shape: int, dtype: Any) -> Any:
        check()
        demand(np.dtype(dtype) == np.uint8, "pinned memory is asked for in bytes")
        return np.asarray(HostAllocation(shape))

    def memcpy_htod_async(destination: int, source: Any, stream: Stream) -> None:
        check()
        data = bytes_of(source)
        demand(
            world.may_copy_from(data.ctypes.data, data.nbytes),
            "an asynchronous copy from memory that is not pinned",
        )
        world.at(destination, data.nbytes)
        world.put(
            stream.fake,
            Operation("in", lambda: np.copyto(world.at(destination, data.nbytes), data), reads=data),
        )

    def memcpy_dtoh_async(destination: Any, source: int, stream: Stream) -> None:
        check()
        data = bytes_of(destination)
        demand(data.flags.writeable, "a copy into memory that is read-only")
        demand(
            world.may_copy_to(data.ctypes.data, data.nbytes),
            "an asynchronous copy to memory that is not pinned",
        )
        world.put(
            stream.fake,
            Operation("out", lambda: np.copyto(data, world.at(source, data.nbytes)), writes=data),
        )

    module = types.ModuleType("pycuda.driver")
    for member in (
        Context,
        Device,
        Stream,
        Event,
        mem_alloc,
        pagelocked_empty,
        memcpy_htod_async,
        memcpy_dtoh_async,
    ):
        setattr(module, member.__name__, member)
    vars(module).update(
        init=lambda: None,
        Error=Error,
        LogicError=LogicError,
        MemoryError=OutOfMemoryError,
        event_flags=event_flags,
    )
    return module
