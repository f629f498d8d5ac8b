"""How much memory may still be taken before something gets killed.

Shared memory is charged to a control group when its pages are first touched, and a group over its limit is
not refused but killed. So the supervisor asks here before each growth. A limit may sit on any ancestor, so
all of them are read; page cache of files that nobody used lately counts as free, as the kernel drops it
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from predictd.server.launch.cgroups import Cgroup, cgroups_of

UNLIMITED_BYTES = 1 << 60
"""Cgroup v1 has no word for "no limit": it shows a number near 2**63."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is left.

    Attributes:
        bytes: May still be taken; 0 when over the limit.
        limit_bytes: The limit that leaves the least.
        limited_by: The file in which that limit stands.
    """

    bytes: int
    limit_bytes: int
    limited_by: str


@dataclass(frozen=True, slots=True)
class _Limit:
    """The files of one control group."""

    limit: Path
    usage: Path
    statistics: Path
    reclaimable: str
    name: str


class MemoryHeadroom:
    """Reads the headroom again and again; which files to read is found out once."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = root / "proc/meminfo"
        groups = cgroups_of("memory", root)
        self._limits = tuple(limit for group in groups if (limit := _limit_files(group)) is not None)

    def read(self) -> Headroom:
        """The least that any control group, or the machine, leaves now.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is not what the kernel documents.
        """
        group_headrooms = (_group_headroom(limit) for limit in self._limits)
        headrooms = [headroom for headroom in group_headrooms if headroom is not None]
        return min((*headrooms, self._machine_headroom()), key=lambda headroom: headroom.bytes)

    def _machine_headroom(self) -> Headroom:
        text = self._meminfo.read_text(encoding="ascii")
        available, total = _field(text, "MemAvailable:"), _field(text, "MemTotal:")
        return Headroom(available * 1024, total * 1024, "/proc/meminfo")


def memory_limit(root: Path = Path("/")) -> tuple[int, str] | None:
    """The tightest limit, in bytes, and the file that says so; None where none is shown.

    Raises:
        ValueError: A file is not what the kernel documents.
    """
    found: list[tuple[int, str]] = []
    for group in cgroups_of("memory", root):
        files = _limit_files(group)
        limit = None if files is None else _limit_bytes(files)
        if files is not None and limit is not None:
            found.append((limit, files.name))
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        found.append((_field(meminfo.read_text(encoding="ascii"), "MemTotal:") * 1024, "/proc/meminfo"))
    return min(found, default=None)


def headroom_bytes(root: Path = Path("/")) -> Headroom:
    """Read the headroom once."""
    return MemoryHeadroom(root).read()


def _limit_files(group: Cgroup) -> _Limit | None:
    folder = group.directory
    if (folder / "memory.max").exists():
        name = f"{group.name}/memory.max"
        return _Limit(
            folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file", name
        )
    if (folder / "memory.limit_in_bytes").exists():
        return _Limit(
            folder / "memory.limit_in_bytes",
            folder / "memory.usage_in_bytes",
            folder / "memory.stat",
            "total_inactive_file",
            f"{group.name}/memory.limit_in_bytes",
        )
    return None


def _group_headroom(files: _Limit) -> Headroom | None:
    limit = _limit_bytes(files)
    if limit is None:
        return None
    usage = int(files.usage.read_text(encoding="ascii"))
    reclaimable = _field(files.statistics.read_text(encoding="ascii"), files.reclaimable)
    return Headroom(max(0, limit - usage + reclaimable), limit, files.name)


def _limit_bytes(files: _Limit) -> int | None:
    text = files.limit.read_text(encoding="ascii").strip()
    return None if text == "max" or int(text) >= UNLIMITED_BYTES else int(text)


def _field(text: str, name: str) -> int:
    """The number behind a name, in a file of one name and one number a line."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError(f"the kernel does not show {name}")
