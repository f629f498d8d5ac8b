"""Which files a process may still open (landlock(7)). It cannot be loosened, and children inherit it.

What is open already stays usable, so the memory and the pipes of the transport are not concerned. Rules are of
folders as they are when the rule is made: what comes into them later is covered.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

# Numbers of system calls that are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# Of those that make and remove entries of folders, all.
_CHANGE_FOLDER: Final = 0x1FF0
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_BIND_OR_CONNECT_TCP: Final = 0b11
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2

_READ: Final = _READ_FILE | _READ_FOLDER
_WRITE: Final = _WRITE_FILE | _CHANGE_FOLDER | _REFER | _TRUNCATE | _IOCTL_DEVICE


def abi() -> int:
    """The version that this kernel has, 0 where there is none or it may not be used."""
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    return max(version, 0)


def restrict(
    read: Iterable[str] | None, execute: Iterable[str], write: Iterable[str], *, unix_sockets: bool
) -> None:
    """Leave this thread, and what it starts, only some files. Paths that are not there are left out.

    Args:
        read: May be read; None for all.
        execute: May be read and executed.
        write: May be read, written, and have entries made and removed.
        unix_sockets: Abstract unix sockets of other processes may be connected to.

    Raises:
        OSError: The kernel refuses.
    """
    version = abi()
    handled = _known(_READ | _EXECUTE | _WRITE if read is not None else _WRITE, version)
    scoped = _SCOPE_SIGNAL | (0 if unix_sockets else _SCOPE_ABSTRACT_UNIX)
    # A kernel takes no more of the structure than it knows.
    attributes = struct.pack("QQQ", handled, _BIND_OR_CONNECT_TCP, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(_CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), 0)
    try:
        for paths, access in ((read or (), _READ), (execute, _READ | _EXECUTE), (write, _READ | _WRITE)):
            for path in paths:
                _allow(ruleset, path, access & handled)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _known(access: int, version: int) -> int:
    """The part of a set of rights that a version knows."""
    for right, since in ((_REFER, 2), (_TRUNCATE, 3), (_IOCTL_DEVICE, 5)):
        if version < since:
            access &= ~right
    return access


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # Not there, or not for this user: then there is nothing to allow.
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _OF_FILES
        if access:
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
