"""One GPU, as this process uses it: its primary context, and the host memory that is pinned for it.

All engines of a process that run on one GPU share its primary context, which other CUDA libraries in the process use
as well. A context is current only within a `with`, whatever thread that is: lanes are loaded by one thread and run by
another, and memory is mapped by a third.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from predictd.engines.api import Array, DeviceLostError, EngineError, ModelLoadError
from predictd.engines.tensorrt.driver import Driver


def parse_device(text: str) -> int:
    """The number of a GPU that a configuration names, such as "0" or "cuda:1".

    Raises:
        ModelLoadError: It names something else.
    """
    number = gpu_number(text)
    if number is None:
        raise ModelLoadError(f"engine tensorrt runs on a GPU, such as the device '0', not on {text!r}")
    return number


def gpu_number(text: str) -> int | None:
    """The number of a GPU, as CUDA counts; None for a device that is none of CUDA's."""
    number = "0" if text == "cuda" else text.removeprefix("cuda:")
    return int(number) if number.isdecimal() and number.isascii() else None


def plan_for(driver: Driver, index: int, path: Path, by_capability: Mapping[str, str]) -> Path:
    """The file for a GPU: the one that is named for its compute capability, else the usual one."""
    if not by_capability or index >= driver.cuda.Device.count():
        return path
    capability = ".".join(map(str, driver.cuda.Device(index).compute_capability()))
    return path.with_name(by_capability.get(capability, path.name))


@dataclass(slots=True)
class _Pinned:
    """A range of host memory that is pinned, and how many engines asked for it."""

    end: int
    users: int = 1


@dataclass(slots=True)
class Gpu:
    """An opened GPU.

    Attributes:
        driver: The packages.
        index: As CUDA counts.
    """

    driver: Driver
    index: int
    _device: Any
    _context: Any
    _users: int = 0
    _pinned: dict[int, _Pinned] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; CUDA's failures within become EngineError."""
        cuda = self.driver.cuda
        try:
            self._context.push()
            try:
                yield
            finally:
                cuda.Context.pop()
        except cuda.Error as error:
            raise self.driver.explained(error) from error

    def pin(self, memory: Array) -> bool:
        """Have the GPU copy from this read-only memory by itself. False where the device cannot."""
        start, size_bytes = memory.ctypes.data, memory.nbytes
        with self._lock:
            if start in self._pinned:
                self._pinned[start].users += 1
                return True
            calls = self.driver.calls
            attribute = calls.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED
            if not size_bytes or not self.driver.call("cuDeviceGetAttribute", attribute, self.index):
                return False
            flags = calls.CU_MEMHOSTREGISTER_READ_ONLY | calls.CU_MEMHOSTREGISTER_PORTABLE
            with self.current():
                self.driver.call("cuMemHostRegister", start, size_bytes, flags)
            self._pinned[start] = _Pinned(start + size_bytes)
            return True

    def unpin(self, memory: Array) -> None:
        """Undo one `pin`, before the memory is unmapped; nothing for memory that is not pinned."""
        start = memory.ctypes.data
        with self._lock:
            pinned = self._pinned.get(start)
            if pinned is None:
                return
            pinned.users -= 1
            if not pinned.users:
                del self._pinned[start]
                with self.current():
                    self.driver.call("cuMemHostUnregister", start)

    def is_pinned(self, array: Array) -> bool:
        """Whether an array lies within pinned memory."""
        start = array.ctypes.data
        end = start + array.nbytes
        # A copy of the items: another thread may pin meanwhile.
        return any(begin <= start and end <= known.end for begin, known in tuple(self._pinned.items()))


_open: dict[int, Gpu] = {}
_open_lock = threading.Lock()


def open_gpu(driver: Driver, index: int) -> Gpu:
    """The GPU of a number, opened once in a process. Each call needs a `close_gpu`.

    Raises:
        EngineError: There is no such GPU, or it cannot be used.
    """
    with _open_lock:
        gpu = _open.get(index)
        if gpu is None:
            count = driver.cuda.Device.count()
            if index >= count:
                raise EngineError(f"there is no GPU {index}: CUDA counts {count}, from 0")
            try:
                device = driver.cuda.Device(index)
                gpu = Gpu(driver, index, device, device.retain_primary_context())
            except driver.cuda.Error as error:
                raise EngineError(f"GPU {index} cannot be used: {driver.explained(error)}") from error
            _open[index] = gpu
        gpu._users += 1  # noqa: SLF001 - of this module
        return gpu


def close_gpu(gpu: Gpu) -> None:
    """Give the primary context back when its last user is gone."""
    with _open_lock:
        gpu._users -= 1  # noqa: SLF001 - of this module
        if not gpu._users:  # noqa: SLF001 - of this module
            del _open[gpu.index]
            # The context of a lost device gives errors for everything, this included.
            with contextlib.suppress(DeviceLostError, gpu.driver.cuda.Error):
                gpu._context.detach()  # noqa: SLF001 - of this module
