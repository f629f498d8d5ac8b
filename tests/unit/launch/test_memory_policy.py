"""The memory policy that a child inherits. Where the kernel refuses, as in some containers, the tests skip."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictd.server.launch import memory_policy
from predictd.server.launch.cpulist import parse_cpulist
from predictd.server.launch.memory_policy import MemoryPolicy, current_policy, preferring
from predictd.server.launch.spawn import spawn

DEFAULT = MemoryPolicy(0, ())
PRINT = (
    "from predictd.server.launch.memory_policy import current_policy as c; p = c(); print(p.mode, *p.nodes)"
)


@pytest.fixture(autouse=True)
def _fresh_warnings() -> Iterator[None]:
    memory_policy._warn_once.cache_clear()
    yield
    memory_policy._warn_once.cache_clear()


@pytest.fixture(name="node")
def _node() -> int:
    """A node with memory."""
    try:
        policy = current_policy()
    except OSError as error:
        pytest.skip(f"get_mempolicy: {error.strerror}")
    if policy != DEFAULT:
        pytest.skip(f"the tests run with a memory policy: {policy}")
    return parse_cpulist(Path("/sys/devices/system/node/has_memory").read_text())[0]


def test_a_child_prefers_its_node_over_exec_and_the_parent_does_not(node: int, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    # And what the kernel shows of the memory that the program got since.
    maps_too = "sys.stdout.write(open('/proc/self/numa_maps').read())"
    script = f"import sys; sys.stdout = open({str(out)!r}, 'w'); {PRINT}; {maps_too}"
    child = spawn(
        [sys.executable, "-c", script],
        environment=dict(os.environ),
        cpus=sorted(os.sched_getaffinity(0)),
        numa_nodes=[node],
    )
    assert child.wait() == 0
    policy, *maps = out.read_text().splitlines()
    assert policy == f"1 {node}"
    assert any(line.split()[1] == f"prefer:{node}" for line in maps)
    assert current_policy() == DEFAULT


def test_without_nodes_nothing_changes(node: int) -> None:
    assert node >= 0
    with preferring([]):
        assert current_policy() == DEFAULT


def test_the_policy_comes_back_after_an_error(node: int) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/nonexistent"], environment={}, cpus=sorted(os.sched_getaffinity(0)), numa_nodes=[node])
    assert current_policy() == DEFAULT


def test_several_nodes_are_preferred_alike(node: int) -> None:
    # One of them may be absent: the kernel drops what has no memory.
    with preferring([node, node + 1]):
        inside = current_policy()
    # Kernels before 5.15 refuse, which is one warning.
    assert inside in {MemoryPolicy(5, (node,)), MemoryPolicy(5, (node, node + 1)), DEFAULT}
    assert current_policy() == DEFAULT


def test_a_policy_of_the_users_own_is_left_alone(node: int) -> None:
    # In a process of its own: bound, as by numactl.
    script = f"""
from predictd.server.launch import memory_policy as m
m._set(m.MemoryPolicy(2, ({node},)))
with m.preferring([{node}]):
    assert m.current_policy() == m.MemoryPolicy(2, ({node},)), m.current_policy()
assert m.current_policy() == m.MemoryPolicy(2, ({node},))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


class _Refusing:
    """A C library in a container whose filter refuses."""

    def __init__(self, number: int) -> None:
        self._number = number

    def syscall(self, *_: object) -> int:
        ctypes.set_errno(self._number)
        return -1


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_refusal_is_one_warning_and_the_child_starts(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _Refusing(number))
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        child = spawn(
            [sys.executable, "-c", ""],
            environment=dict(os.environ),
            cpus=sorted(os.sched_getaffinity(0)),
            numa_nodes=[0],
        )
        assert child.wait() == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"no memory node can be preferred: {os.strerror(number)}; memory comes from where the CPU is"
    ]


def test_an_unknown_machine_is_a_refusal_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_policy, "_CALLS", {})
    with preferring([0]):
        pass
    (record,) = caplog.records
    assert record.getMessage().startswith("no memory node can be preferred: not known how on ")
