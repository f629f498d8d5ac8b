"""The filter of system calls, run by an interpreter of its few instructions."""

from __future__ import annotations

import errno
import socket

import pytest

from predictd.server.launch.sandbox import seccomp
from predictd.server.launch.sandbox.seccomp import ALLOW, DENIED, ERRNO, KILL, Instruction, program

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003
SOCKET = {"x86_64": 41, "aarch64": 198}
CLONE = {"x86_64": 56, "aarch64": 220}
PRLIMIT64 = {"x86_64": 302, "aarch64": 261}
# What engines live on.
NEEDED = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "futex": 202, "openat": 257, "socketpair": 53, "execve": 59},
    "aarch64": {
        "read": 63,
        "write": 64,
        "mmap": 222,
        "futex": 98,
        "openat": 56,
        "socketpair": 199,
        "execve": 221,
    },
}


def outcome(steps: tuple[Instruction, ...], number: int, argument: int = 0, *, architecture: int) -> int:
    """What the kernel would do with a call."""
    data = {0: number, 4: architecture, 16: argument & 0xFFFFFFFF}
    accumulator, at = 0, 0
    while True:
        step = steps[at]
        at += 1
        match step.code:
            case 0x20:
                accumulator = data[step.value]
            case 0x15:
                at += step.if_true if accumulator == step.value else step.if_false
            case 0x35:
                at += step.if_true if accumulator >= step.value else step.if_false
            case 0x45:
                at += step.if_true if accumulator & step.value else step.if_false
            case 0x06:
                return step.value
            case _:
                raise AssertionError(step)


@pytest.mark.parametrize("unix_sockets", [False, True])
@pytest.mark.parametrize("machine", sorted(DENIED))
def test_what_only_an_intruder_calls_is_denied_and_all_else_is_not(machine: str, unix_sockets: bool) -> None:
    steps = program(machine, unix_sockets=unix_sockets)
    here = ARCHITECTURES[machine]
    for name, number in DENIED[machine].items():
        assert outcome(steps, number, architecture=here) == ERRNO | errno.EPERM, name
    for name, number in NEEDED[machine].items():
        assert outcome(steps, number, architecture=here) == ALLOW, name
    for number in (425, 426, 427, 435):
        assert outcome(steps, number, architecture=here) == ERRNO | errno.ENOSYS
    for family in socket.AddressFamily:
        allowed = unix_sockets and family is socket.AF_UNIX
        expected = ALLOW if allowed else ERRNO | errno.EACCES
        assert outcome(steps, SOCKET[machine], family, architecture=here) == expected, family
    # Threads, and a name space of users.
    assert outcome(steps, CLONE[machine], 0x3D0F00, architecture=here) == ALLOW
    assert outcome(steps, CLONE[machine], 0x10000011, architecture=here) == ERRNO | errno.EPERM
    # Limits of its own, which the C library asks for so, and of others.
    assert outcome(steps, PRLIMIT64[machine], 0, architecture=here) == ALLOW
    assert outcome(steps, PRLIMIT64[machine], 1, architecture=here) == ERRNO | errno.EPERM
    assert all(step.if_true < 256 and step.if_false < 256 for step in steps)


@pytest.mark.parametrize("machine", sorted(DENIED))
def test_the_numbers_of_another_abi_are_no_way_around(machine: str) -> None:
    steps = program(machine, unix_sockets=False)
    assert outcome(steps, 1, architecture=I386) == KILL
    if machine == "x86_64":
        x32 = 0x40000000
        assert outcome(steps, x32 + SOCKET[machine], 2, architecture=ARCHITECTURES[machine]) & ERRNO


def test_a_machine_whose_numbers_are_not_known_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_MACHINES", {})
    assert not seccomp.is_available()
