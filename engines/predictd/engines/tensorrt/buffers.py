"""Memory that grows: on the GPU, and pinned on the host, from where the GPU copies by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from predictd.engines.api import Array

_EMPTY = np.empty(0, np.uint8)


class DeviceBuffer:
    """Memory of the GPU. Empty until it is asked for; the context must be current."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._memory: Any = None
        self._size_bytes = 0

    @property
    def address(self) -> int:
        """Of its first byte; 0 before the first `ensure`."""
        return 0 if self._memory is None else int(self._memory)

    def ensure(self, size_bytes: int) -> bool:
        """Have at least so many bytes, and one even for nothing: TensorRT wants an address. Whether it moved."""
        if self._memory is not None and size_bytes <= self._size_bytes:
            return False
        self.free()
        self._memory = self._cuda.mem_alloc(max(size_bytes, 1))
        self._size_bytes = max(size_bytes, 1)
        return True

    def free(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
            memory, self._memory, self._size_bytes = self._memory, None, 0
            memory.free()


class PinnedBuffer:
    """Host memory that stays in RAM: a copy from or to any other would not be asynchronous."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._memory: Any = _EMPTY

    def view(self, size_bytes: int) -> Array:
        """Its first bytes."""
        if size_bytes > self._memory.nbytes:
            self.free()
            self._memory = self._cuda.pagelocked_empty(size_bytes, np.uint8)
        view: Array = self._memory[:size_bytes]
        return view

    def free(self) -> None:
        """Give the memory back. No view of it may be used afterwards."""
        memory, self._memory = self._memory, _EMPTY
        if memory.nbytes:
            memory.base.free()


def as_bytes(array: Array) -> Array:
    """A contiguous array's memory as bytes."""
    return array.reshape(-1).view(np.uint8)
