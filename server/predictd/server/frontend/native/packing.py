"""Arguments of the hot path's commands: little-endian numbers, and texts with their length before them."""

from __future__ import annotations

import struct
from array import array
from mmap import mmap
from typing import Any, Protocol

import numpy as np

_U32 = struct.Struct("<I")


class Command(Protocol):
    """Has the loop's thread carry out a command, and waits for that."""

    def __call__(self, name: str, arguments: bytes, /) -> bytes:
        """What the command gives.

        Raises:
            ValueError: It cannot be carried out.
        """


class Line:
    """The way to the loop, until it ends.

    Args:
        command: To the loop.

    Attributes:
        closed: The loop has ended, or is about to: what is still under way here comes to nothing.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self.closed = False

    def __call__(self, name: str, arguments: bytes, /) -> bytes:
        """See `Command`."""
        return b"" if self.closed else self._command(name, arguments)


def text(value: str | bytes) -> bytes:
    """A text as commands take it."""
    encoded = value.encode() if isinstance(value, str) else value
    return _U32.pack(len(encoded)) + encoded


def numbers(*values: int) -> bytes:
    """Numbers of 32 bits."""
    return struct.pack(f"<{len(values)}I", *values)


def longs(*values: int) -> bytes:
    """Numbers of 64 bits, negative ones as their complement."""
    return struct.pack(f"<{len(values)}Q", *(value & 0xFFFF_FFFF_FFFF_FFFF for value in values))


def address(memory: mmap | memoryview | bytearray | array[int]) -> tuple[int, Any]:
    """Where memory lies, and what keeps it there as long as it is kept."""
    array = np.frombuffer(memory, np.uint8)
    return array.ctypes.data, array
