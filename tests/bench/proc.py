"""What the kernel says about processes: CPU time, memory, children and roles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_TITLES = {
    "predictd: supervisor": "supervisor",
    "predictd: frontend": "front ends",
    "predictd: worker": "workers",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of a process; `pss_bytes` counts a shared page once over all who share it."""

    rss_bytes: int
    pss_bytes: int


def _stat(pid: int) -> list[str]:
    """The fields after the command name, which alone may hold spaces: field 3 of proc(5) comes first."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """CPU time that the process used so far, in all its threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def cpu_by_role(roles: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """CPU time so far, summed over the processes of each role."""
    return {role: sum(cpu_seconds(pid) for pid in pids) for role, pids in roles.items()}


def memory(pid: int) -> Memory:
    """Resident memory now."""
    fields: dict[str, int] = {}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    return Memory(fields["Rss"], fields["Pss"])


def memory_of(pids: Iterable[int]) -> Memory:
    """Summed over processes."""
    each = [memory(pid) for pid in pids]
    return Memory(sum(m.rss_bytes for m in each), sum(m.pss_bytes for m in each))


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def daemon_roles(pid: int) -> dict[str, list[int]]:
    """The processes of a daemon by what their titles say they are."""
    roles: dict[str, list[int]] = {role: [] for role in _TITLES.values()}
    for each in [pid, *descendants(pid)]:
        try:
            title = (_PROC / str(each) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            # It ended since it was listed.
            continue
        role = next((role for start, role in _TITLES.items() if title.startswith(start)), "others")
        roles.setdefault(role, []).append(each)
    return roles


def machine_busy_seconds() -> float:
    """CPU time that all processes of the machine used so far."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(field) for field in (_PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_SECOND


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_model() -> str:
    """The processor's name, as the kernel tells it."""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return "unknown"
