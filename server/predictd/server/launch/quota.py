"""CPU quotas of control groups, and whether they have hurt already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from predictd.server.launch.cgroups import Cgroup, cgroups_of

# Of all periods. A group that started up was throttled now and then; what goes on like that costs latency.
_THROTTLED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Quota:
    """CPU time that a control group may use.

    Attributes:
        cpus: In CPUs: 2.5 is two and a half CPUs' time.
        source: The file that says so.
        throttling: How often it made the group wait, in a sentence; empty if it hardly ever did.
    """

    cpus: float
    source: str
    throttling: str = ""


def read_quotas(root: Path = Path("/")) -> tuple[tuple[Quota, ...], tuple[str, ...]]:
    """Read the CPU quota of the process's control group and of every visible ancestor.

    Returns:
        The quotas, and a note on each file that makes no sense and was passed over.
    """
    quotas: list[Quota] = []
    notes: list[str] = []
    for group in cgroups_of("cpu", root):
        try:
            quota = _quota_v2(group) or _quota_v1(group)
        except ValueError as error:
            notes.append(f"the CPU quota of {group.name} is unreadable and was ignored: {error}")
            continue
        if quota is not None:
            quotas.append(quota)
    return tuple(quotas), tuple(notes)


def _quota_v2(group: Cgroup) -> Quota | None:
    text = _read(group, "cpu.max")
    if text is None:
        return None
    quota, period = text.split()
    return None if quota == "max" else _quota(group, int(quota), int(period), "cpu.max")


def _quota_v1(group: Cgroup) -> Quota | None:
    quota, period = _read(group, "cpu.cfs_quota_us"), _read(group, "cpu.cfs_period_us")
    if quota is None or period is None:
        return None
    # -1 is "no quota".
    return None if int(quota) < 0 else _quota(group, int(quota), int(period), "cpu.cfs_quota_us")


def _quota(group: Cgroup, quota_us: int, period_us: int, file: str) -> Quota:
    if quota_us <= 0 or period_us <= 0:
        raise ValueError(f"{quota_us} of {period_us} microseconds")
    return Quota(quota_us / period_us, f"{group.name}/{file}", _throttling(group))


def _throttling(group: Cgroup) -> str:
    counts = dict(line.split(maxsplit=1) for line in (_read(group, "cpu.stat") or "").splitlines())
    periods, throttled = int(counts.get("nr_periods", 0)), int(counts.get("nr_throttled", 0))
    if throttled == 0 or throttled < periods * _THROTTLED_SHARE:
        return ""
    return (
        f"the quota of {group.name} has throttled it in {throttled} of {periods} periods so far "
        "(cpu.stat): whatever ran there wanted more than the quota"
    )


def _read(group: Cgroup, name: str) -> str | None:
    """A file's text, or None where the group does not have it: the root, or the other version."""
    try:
        return (group.directory / name).read_text(encoding="ascii")
    except (FileNotFoundError, PermissionError):
        return None
