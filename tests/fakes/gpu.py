"""A GPU that is none: memory, streams and contexts that keep CUDA's contract and say who breaks it.

Nothing runs when it is put into a stream: it runs when somebody waits for it, as late as a real GPU may. So whoever
reads an answer too early reads zeros, and whoever changes or frees memory in flight is caught.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class BrokenContractError(AssertionError):
    """CUDA or TensorRT was used in a way that it does not allow."""


def demand(holds: bool, what: str) -> None:
    """Fail the test where a rule is broken."""
    if not holds:
        raise BrokenContractError(what)


@dataclass
class Operation:
    """Something in a stream.

    Attributes:
        kind: `in`, `run` or `out`.
        act: Does it.
        reads: Host memory that must not change until then.
        writes: Host memory that nobody may free until then.
    """

    kind: str
    act: Callable[[], None]
    reads: Bytes | None = None
    writes: Bytes | None = None
    before: bytes = b""

    def run(self) -> None:
        """Do it, now that its turn has come."""
        if self.reads is not None:
            demand(
                self.reads.tobytes() == self.before, "host memory changed while a copy from it was in flight"
            )
        self.act()


@dataclass
class FakeStream:
    """Operations that wait for their turn; `captured` is a list while it records a graph."""

    handle: int
    waiting: list[Operation] = field(default_factory=list)
    captured: list[Operation] | None = None

    def flush(self) -> None:
        """Do everything that waits."""
        waiting, self.waiting = self.waiting, []
        for operation in waiting:
            operation.run()


class World:
    """One machine with GPUs.

    Attributes:
        trace: What happened, as (kind, stream): `in`, `run`, `graph`, `out`, `wait`.
        device_count: GPUs.
        registers_read_only: The device copies from memory that is mapped read-only.
        free_bytes: Of each GPU, for all of them together.
        lost: The error that every call gives from now on; empty while the GPU is well.
        capture_error: Recording graphs fails with it.
    """

    def __init__(self) -> None:
        self.trace: list[tuple[str, int]] = []
        self.device_count = 2
        self.registers_read_only = True
        self.free_bytes = 1 << 30
        self.lost = ""
        self.capture_error = ""
        self.memory: dict[int, Bytes] = {}
        self.pinned: dict[int, Bytes] = {}
        self.registered: dict[int, int] = {}
        self.streams: dict[int, FakeStream] = {}
        self.contexts_made = 0
        self.graphs: dict[int, list[Operation]] = {}
        self._next = 0x1000
        self._current = threading.local()

    # Contexts -------------------------------------------------------------------------------------------------

    @property
    def current(self) -> list[int]:
        """The stack of this thread's contexts, as GPU numbers."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        stack: list[int] = self._current.stack
        return stack

    def need_context(self) -> None:
        """What every call begins with."""
        demand(bool(self.current), "a CUDA call without a current context")

    def address(self) -> int:
        """A new one, far from all others."""
        self._next += 1 << 32
        return self._next

    # Memory ---------------------------------------------------------------------------------------------------

    def allocate(self, size_bytes: int) -> int | None:
        """GPU memory; None when there is none left."""
        demand(size_bytes > 0, "an allocation of no bytes")
        if size_bytes > self.free_bytes:
            return None
        self.free_bytes -= size_bytes
        address = self.address()
        self.memory[address] = np.zeros(size_bytes, np.uint8)
        return address

    def free(self, address: int) -> None:
        """Give GPU memory back: it waits for all that runs."""
        for stream in self.streams.values():
            stream.flush()
        demand(address in self.memory, "GPU memory freed twice")
        self.free_bytes += self.memory.pop(address).nbytes

    def at(self, address: int, size_bytes: int) -> Bytes:
        """So many bytes of GPU memory."""
        demand(address in self.memory, f"no GPU memory at {address:#x}")
        demand(size_bytes <= self.memory[address].nbytes, "more bytes than the GPU memory has")
        return self.memory[address][:size_bytes]

    def may_copy_from(self, start: int, size_bytes: int) -> bool:
        """Whether the GPU copies by itself from there: pinned, or registered."""
        pinned = any(a <= start and start + size_bytes <= a + b.nbytes for a, b in self.pinned.items())
        return pinned or any(
            a <= start and start + size_bytes <= a + size for a, size in self.registered.items()
        )

    def may_copy_to(self, start: int, size_bytes: int) -> bool:
        """The same of a copy to there, which registered memory, being read-only, does not allow."""
        return any(a <= start and start + size_bytes <= a + b.nbytes for a, b in self.pinned.items())

    def in_flight(self, start: int, size_bytes: int) -> bool:
        """Whether something that waits uses this host memory."""
        return any(
            part is not None
            and part.ctypes.data < start + size_bytes
            and start < part.ctypes.data + part.nbytes
            for stream in self.streams.values()
            for operation in stream.waiting
            for part in (operation.reads, operation.writes)
        )

    # Streams --------------------------------------------------------------------------------------------------

    def put(self, stream: FakeStream, operation: Operation) -> None:
        """Put an operation into a stream, or into the graph that it records."""
        self.need_context()
        if operation.reads is not None:
            operation.before = operation.reads.tobytes()
        if stream.captured is not None:
            stream.captured.append(operation)
            return
        self.trace.append((operation.kind, stream.handle))
        stream.waiting.append(operation)

    def stream(self, handle: int) -> FakeStream:
        """A stream by its handle."""
        demand(handle != 0, "the default stream, which waits for all others")
        demand(handle in self.streams, "a stream that is none")
        return self.streams[handle]

    def kinds(self) -> list[str]:
        """The trace with streams numbered as they come: `in0`, `run0`, `in1` and so on."""
        numbers: dict[int, int] = {}
        return [f"{kind}{numbers.setdefault(handle, len(numbers))}" for kind, handle in self.trace]

    def nothing_left(self) -> None:
        """Demand that everything was given back."""
        demand(not self.memory, f"{len(self.memory)} pieces of GPU memory were not freed")
        demand(not self.pinned, f"{len(self.pinned)} pieces of pinned memory were not freed")
        demand(not self.registered, "host memory is still registered")
        demand(not self.graphs, "graphs were not destroyed")
        demand(not self.current, "a context is still current")
        demand(self.contexts_made == 0, "a primary context is still retained")


def bytes_of(array: Any) -> Bytes:
    """The memory of an array that a copy is from or to."""
    demand(array.flags.c_contiguous, "a copy of an array that is not contiguous")
    return np.asarray(array).reshape(-1).view(np.uint8)
