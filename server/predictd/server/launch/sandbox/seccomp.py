"""A filter of system calls (seccomp(2)): no network, nothing that only an intruder calls.

Pure but for `install` and `is_available`. What is denied is a table of numbers; all else is allowed, so that no engine
meets a surprise. io_uring and clone3 say that they do not exist, as on older kernels: the first opens sockets without
socket(2), and what the second makes a filter cannot see.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
# Threads that a library has begun already are filtered, too; mitigations that cost speed stay as they were.
_FLAG_TSYNC, _FLAG_SPEC_ALLOW = 1, 4

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _IF_EQUAL, _IF_SET, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
# Offsets in struct seccomp_data; of an argument the lower half, which is all that these take.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16
# Numbers of the x32 ABI, which name the same calls once more.
_X32: Final = 0x40000000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NEW_NAMESPACES: Final = 0x7E020000

DENIED: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "open_by_handle_at": 304,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429,
        "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
        "setns": 308, "unshare": 272, "add_key": 248, "request_key": 249, "keyctl": 250,
        "acct": 163, "swapon": 167, "swapoff": 168, "reboot": 169, "settimeofday": 164, "clock_settime": 227,
        "clock_adjtime": 305, "adjtimex": 159, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "open_by_handle_at": 265,
        "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "open_tree": 428, "move_mount": 429,
        "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
        "setns": 268, "unshare": 97, "add_key": 217, "request_key": 218, "keyctl": 219,
        "acct": 89, "swapon": 224, "swapoff": 225, "reboot": 142, "settimeofday": 170, "clock_settime": 112,
        "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161, "setdomainname": 162,
    },
}  # fmt: skip
"""Calls that fail with EPERM, with their numbers, by machine."""

# Alike on both.
_ABSENT: Mapping[str, int] = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """Its AUDIT_ARCH, and the numbers that the filter and its installation need."""

    architecture: int
    seccomp: int
    socket: int
    clone: int
    prlimit64: int


_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(0xC000003E, 317, 41, 56, 302),
    "aarch64": _Machine(0xC00000B7, 277, 198, 220, 261),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of BPF's; the jumps are relative to the next one."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def packed(self) -> bytes:
        """As the kernel takes it (struct sock_filter)."""
        return struct.pack("HBBI", self.code, self.if_true, self.if_false, self.value)


def program(machine: str, *, unix_sockets: bool) -> tuple[Instruction, ...]:
    """The filter.

    Args:
        machine: As uname(2) calls it, one of DENIED.
        unix_sockets: Sockets of this machine may be made: libraries of GPUs talk to services of theirs.
    """
    known = _MACHINES[machine]
    steps = [
        Instruction(_LOAD, _ARCHITECTURE_AT),
        Instruction(_IF_EQUAL, known.architecture, 1, 0),
        # Another ABI has other numbers for the same calls.
        Instruction(_RETURN, KILL),
        Instruction(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        steps += [Instruction(_IF_AT_LEAST, _X32, 0, 1), Instruction(_RETURN, ERRNO | errno.EPERM)]
    for number in sorted(_ABSENT.values()):
        steps += [Instruction(_IF_EQUAL, number, 0, 1), Instruction(_RETURN, ERRNO | errno.ENOSYS)]
    for number in sorted(DENIED[machine].values()):
        steps += [Instruction(_IF_EQUAL, number, 0, 1), Instruction(_RETURN, ERRNO | errno.EPERM)]
    steps += [
        # Limits of others: of a user's processes each may set those of all, a second of CPU, say, for the supervisor.
        Instruction(_IF_EQUAL, known.prlimit64, 0, 4),
        Instruction(_LOAD, _ARGUMENT_AT),
        Instruction(_IF_EQUAL, 0, 1, 0),
        Instruction(_RETURN, ERRNO | errno.EPERM),
        Instruction(_RETURN, ALLOW),
        Instruction(_IF_EQUAL, known.clone, 0, 4),
        Instruction(_LOAD, _ARGUMENT_AT),
        Instruction(_IF_SET, _NEW_NAMESPACES, 0, 1),
        Instruction(_RETURN, ERRNO | errno.EPERM),
        Instruction(_RETURN, ALLOW),
        Instruction(_IF_EQUAL, known.socket, 0, 3),
        Instruction(_LOAD, _ARGUMENT_AT),
        # Without an address family that is allowed, none is like the one that there is not.
        Instruction(_IF_EQUAL, socket.AF_UNIX if unix_sockets else 0xFFFFFFFF, 1, 0),
        Instruction(_RETURN, ERRNO | errno.EACCES),
        Instruction(_RETURN, ALLOW),
    ]
    return tuple(steps)


def is_available() -> bool:
    """Whether this kernel, and whatever confines us already, let a filter be installed here."""
    known = _MACHINES.get(os.uname().machine)
    if known is None or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(ERRNO)
    return bool(_libc().syscall(known.seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


def forbid_new_privileges() -> None:
    """From now on no program that this process starts has more rights than it. Raises OSError."""
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failed("prctl(PR_SET_NO_NEW_PRIVS)")


def install(*, unix_sockets: bool) -> None:
    """Put the filter on all threads of this process, for good. Raises OSError."""
    machine = os.uname().machine
    packed = b"".join(step.packed() for step in program(machine, unix_sockets=unix_sockets))
    code = ctypes.create_string_buffer(packed, len(packed))
    # struct sock_fprog: how many instructions, and where they are.
    filled = struct.pack("HxxxxxxQ", len(packed) // 8, ctypes.addressof(code))
    flags = _FLAG_TSYNC | _FLAG_SPEC_ALLOW
    if _libc().syscall(_MACHINES[machine].seccomp, _SET_MODE_FILTER, flags, filled) != 0:
        raise _failed("seccomp")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
