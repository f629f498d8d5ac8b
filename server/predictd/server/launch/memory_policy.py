"""On which memory nodes a child's memory shall lie: a policy that exec passes on, as it does the affinity mask.

The policy prefers and does not bind: a full node makes a process slower, not dead.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_DEFAULT, _PREFERRED, _PREFERRED_MANY = 0, 1, 5
# Numbers of get_mempolicy and set_mempolicy; the C library has no functions for them.
_CALLS = {"x86_64": (239, 238), "aarch64": (236, 237), "riscv64": (236, 237)}
# The kernel's largest MAX_NUMNODES, and it counts one too many.
_NODES = 1024
_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
_Mask = ctypes.c_ulong * (_NODES // _BITS)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """A thread's memory policy.

    Attributes:
        mode: As in set_mempolicy(2), flags included.
        nodes: Ascending.
    """

    mode: int
    nodes: tuple[int, ...]

    @property
    def is_default(self) -> bool:
        """Memory comes from the node of the CPU that asks."""
        return self.mode == _DEFAULT


@contextmanager
def preferring(nodes: Sequence[int]) -> Iterator[None]:
    """For a while, prefer memory of some nodes; children made meanwhile keep to it, over exec too.

    A policy that the user gave the daemon (numactl, systemd's NUMAPolicy=) is left alone. Where the kernel refuses, as
    containers make it, one warning says so, and memory comes from the node of the CPU that asks for it.

    Args:
        nodes: To prefer; none leaves everything as it is.

    Raises:
        OSError: The policy of before cannot be put back.
    """
    before = _prefer(nodes) if nodes else None
    try:
        yield
    finally:
        if before is not None:
            _set(before)


def current_policy() -> MemoryPolicy:
    """The calling thread's.

    Raises:
        OSError: The kernel does not tell.
    """
    mode, mask = ctypes.c_int(), _Mask()
    _call(0, ctypes.byref(mode), mask, ctypes.c_ulong(_NODES + 1), None, ctypes.c_ulong(0))
    nodes = (node for node in range(_NODES) if mask[node // _BITS] >> node % _BITS & 1)
    return MemoryPolicy(mode.value, tuple(nodes))


def _prefer(nodes: Sequence[int]) -> MemoryPolicy | None:
    """The policy to put back afterwards; None when nothing was changed."""
    try:
        before = current_policy()
        if not before.is_default:
            return None
        # Kernels before 5.15 can prefer only one node, which would be the wrong one for half of the CPUs.
        _set(MemoryPolicy(_PREFERRED if len(nodes) == 1 else _PREFERRED_MANY, tuple(nodes)))
    except OSError as error:
        _warn_once(f"no memory node can be preferred: {error.strerror}; memory comes from where the CPU is")
        return None
    return before


def _set(policy: MemoryPolicy) -> None:
    mask = _Mask()
    for node in policy.nodes:
        mask[node // _BITS] |= 1 << node % _BITS
    _call(1, ctypes.c_int(policy.mode), mask, ctypes.c_ulong(_NODES + 1))


def _call(which: int, *arguments: object) -> None:
    numbers = _CALLS.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"not known how on {os.uname().machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(numbers[which]), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
