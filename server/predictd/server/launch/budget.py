"""How much CPU this process may use: its affinity mask, the CPUs that are online, and cgroup quotas."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from predictd.server.launch.cgroups import Cgroup, cgroups_of
from predictd.server.launch.cpulist import format_cpulist


@dataclass(frozen=True, slots=True)
class Quota:
    """CPU time that a control group may use.

    Attributes:
        cpus: In CPUs: 2.5 is two and a half CPUs' time.
        source: The file that says so.
    """

    cpus: float
    source: str


@dataclass(frozen=True, slots=True)
class Budget:
    """The CPUs to plan with.

    Attributes:
        cpus: Where threads may run, ascending; never empty.
        quota_cpus: The tightest quota in CPUs; None without one.
        effective_cpus: How many threads can compute at once without being throttled; at least 1.
        reasons: Where these numbers come from.
    """

    cpus: tuple[int, ...]
    quota_cpus: float | None
    effective_cpus: int
    reasons: tuple[str, ...]

    @property
    def throttled(self) -> bool:
        """A quota allows less than the CPUs could do."""
        return self.quota_cpus is not None and self.quota_cpus < len(self.cpus)


def read_budget(affinity: Collection[int], online: Collection[int], root: Path = Path("/")) -> Budget:
    """Find what this process may use.

    Args:
        affinity: `os.sched_getaffinity(0)`, which a cpuset restricts too.
        online: The machine's online CPUs.
        root: Where `proc` and `sys` lie.
    """
    quotas, notes = read_quotas(root)
    budget = make_budget(affinity, online, quotas)
    return Budget(budget.cpus, budget.quota_cpus, budget.effective_cpus, (*budget.reasons, *notes))


def make_budget(affinity: Collection[int], online: Collection[int], quotas: Sequence[Quota]) -> Budget:
    """Combine what restricts the process. A quota rounds down: one thread too many throttles all the others.

    Raises:
        ValueError: The affinity mask is empty.
    """
    cpus, reason = _usable(affinity, online)
    if not quotas:
        return Budget(cpus, None, len(cpus), (reason, "no CPU quota in any visible cgroup"))
    tightest = min(quotas, key=lambda quota: quota.cpus)
    effective = max(1, min(len(cpus), math.floor(tightest.cpus)))
    return Budget(cpus, tightest.cpus, effective, (reason, _quota_reason(tightest, len(cpus), effective)))


def _usable(affinity: Collection[int], online: Collection[int]) -> tuple[tuple[int, ...], str]:
    if not affinity:
        raise ValueError("the affinity mask is empty")
    mask = format_cpulist(affinity)
    cpus = tuple(sorted(set(affinity) & set(online)))
    if not cpus:
        # A container may show a made-up list of online CPUs; the scheduler's mask is the truth.
        return tuple(sorted(affinity)), f"CPUs {mask}: the affinity mask (none is listed as online, ignored)"
    offline = set(affinity) - set(cpus)
    if offline:
        gone = format_cpulist(offline)
        return cpus, f"CPUs {format_cpulist(cpus)}: the affinity mask {mask} without {gone}, offline"
    return cpus, f"CPUs {mask}: the affinity mask"


def _quota_reason(quota: Quota, cpus: int, effective: int) -> str:
    head = f"quota of {quota.cpus:g} CPUs in {quota.source}"
    if quota.cpus < 1:
        return f"{head}: less than one CPU, so even one thread will be throttled"
    if quota.cpus >= cpus:
        return f"{head}: no less than the CPUs can use"
    return f"{head}: {effective} of the CPUs at a time, rounded down"


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
    return None if quota == "max" else _quota(int(quota), int(period), f"{group.name}/cpu.max")


def _quota_v1(group: Cgroup) -> Quota | None:
    quota, period = _read(group, "cpu.cfs_quota_us"), _read(group, "cpu.cfs_period_us")
    if quota is None or period is None:
        return None
    # -1 is "no quota".
    return None if int(quota) < 0 else _quota(int(quota), int(period), f"{group.name}/cpu.cfs_quota_us")


def _quota(quota_us: int, period_us: int, source: str) -> Quota:
    if quota_us <= 0 or period_us <= 0:
        raise ValueError(f"{quota_us} of {period_us} microseconds")
    return Quota(quota_us / period_us, source)


def _read(group: Cgroup, name: str) -> str | None:
    """A file's text, or None where the group does not have it: the root, or the other version."""
    try:
        return (group.directory / name).read_text(encoding="ascii")
    except (FileNotFoundError, PermissionError):
        return None
