"""Shared memory with one writer: a memfd that only its maker can write, fully allocated before it is used.

Full allocation matters: a page that cannot be had when it is first touched would kill the process with
SIGBUS. The seals (fcntl(2), F_SEAL_FUTURE_WRITE) let the maker keep its writable mapping while nobody can
make another.
"""

from __future__ import annotations

import fcntl
import mmap
import os

F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_SEAL_SEAL = 0x0001
F_SEAL_SHRINK = 0x0002
F_SEAL_GROW = 0x0004
F_SEAL_FUTURE_WRITE = 0x0010


def create_shared(name: str, size_bytes: int) -> tuple[int, mmap.mmap]:
    """Make a memfd of `size_bytes`, map it for writing, and seal it against every other writer.

    Returns:
        The descriptor, to be passed to readers, and the only writable mapping there will ever be.

    Raises:
        OSError: The memory cannot be had (ENOMEM, ENOSPC).
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        mapping = mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        seals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd, mapping


def map_shared(fd: int, size_bytes: int) -> mmap.mmap:
    """Map somebody else's memory for reading. The descriptor may be closed afterwards.

    Raises:
        ValueError: As `check_shared`.
    """
    check_shared(fd, size_bytes)
    return mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)


def check_shared(fd: int, size_bytes: int) -> None:
    """See whether whoever maps somebody else's memory can read all of it for good.

    Raises:
        ValueError: It is smaller than it was said to be, or may become so: then reading it would end the reader.
    """
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)
    except OSError:
        raise ValueError("what was to be shared memory is no memfd") from None
    if not seals & F_SEAL_SHRINK:
        raise ValueError("shared memory is not sealed: it could shrink")
    actual_bytes = os.fstat(fd).st_size
    if actual_bytes < size_bytes:
        raise ValueError(f"shared memory has {actual_bytes} bytes, {size_bytes} were announced")
