"""What the kernel shows of a process: its memory and its CPU time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
# proc_pid_stat(5): fields behind the name, which is in parentheses and may hold anything.
_USER_TICKS, _SYSTEM_TICKS = 11, 12
# proc_pid_statm(5).
_RESIDENT_PAGES, _FILE_AND_SHARED_PAGES = 1, 2


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process has in memory.

    Attributes:
        resident_bytes: All of it, shared pages included.
        anonymous_bytes: The part that is its own: neither shared memory nor pages of files.
    """

    resident_bytes: int
    anonymous_bytes: int


def memory(pids: Iterable[int], proc: Path = PROC) -> dict[int, Memory]:
    """The memory of processes.

    Args:
        pids: Process ids. Those that are gone are left out of the answer.
        proc: Where procfs is mounted.
    """
    found = {}
    for pid in pids:
        try:
            pages = (proc / str(pid) / "statm").read_text(encoding="ascii").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident = int(pages[_RESIDENT_PAGES])
        anonymous = resident - int(pages[_FILE_AND_SHARED_PAGES])
        found[pid] = Memory(resident * _PAGE_BYTES, anonymous * _PAGE_BYTES)
    return found


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """The CPU time of all threads of a process, those that ended included; 0 for one that was reaped."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) * _TICK_SECONDS
