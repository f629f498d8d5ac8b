"""Whether a process that does not respond would, if it were given a CPU or its pages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# With so much of a CPU in one look, whoever wanted to answer has had a turn.
ENOUGH_CPU_SECONDS = 0.02
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
# proc_pid_stat(5): fields behind the name, which is in parentheses and may hold anything.
_STATE, _USER_TICKS, _SYSTEM_TICKS = 0, 11, 12
_WANTS_CPU_OR_DISK = ("R", "D")


@dataclass(frozen=True, slots=True)
class Activity:
    """What the threads of a process are about.

    Attributes:
        cpu_seconds: Of those that live now, since each began.
        waits: One of them runs or would, or waits for the disk.
    """

    cpu_seconds: float
    waits: bool


def read_activity(pid: int, proc: Path = Path("/proc")) -> Activity | None:
    """Look at all threads; None if the process is gone."""
    ticks, waits = 0, False
    try:
        for task in (proc / str(pid) / "task").iterdir():
            text = (task / "stat").read_text(encoding="utf-8", errors="replace")
            fields = text.rpartition(")")[2].split()
            ticks += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
            waits = waits or fields[_STATE] in _WANTS_CPU_OR_DISK
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Activity(ticks * _TICK_SECONDS, waits)


def held_back(before: Activity | None, now: Activity | None) -> bool:
    """Whether a process wanted to go on since the last look and could not."""
    if before is None or now is None:
        return False
    return now.waits and now.cpu_seconds - before.cpu_seconds < ENOUGH_CPU_SECONDS
