"""How much this process may use: affinity mask, cpuset, online CPUs, and the quotas and limits of control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from predictd.server.launch.cgroups import cgroups_of
from predictd.server.launch.cpulist import format_cpulist, parse_cpulist
from predictd.server.launch.memory import memory_limit
from predictd.server.launch.quota import Quota, read_quotas
from predictd.server.launch.topology import status_field

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Budget:
    """What to plan with.

    Attributes:
        cpus: Where threads may run, ascending; never empty.
        quota_cpus: The tightest quota in CPUs; None without one.
        effective_cpus: How many threads can compute at once without being throttled; at least 1.
        reasons: Where these numbers come from.
        warnings: What of them costs time.
        memory_bytes: The tightest memory limit; None where none is shown.
    """

    cpus: tuple[int, ...]
    quota_cpus: float | None
    effective_cpus: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    memory_bytes: int | None = None

    @property
    def throttled(self) -> bool:
        """A quota allows less than the CPUs could do."""
        return self.quota_cpus is not None and self.quota_cpus < len(self.cpus)


def read_affinity(root: Path = Path("/")) -> tuple[int, ...]:
    """The affinity mask of this process, or of the one whose status lies below another root.

    Raises:
        ValueError: Nothing below the root says which CPUs there are.
    """
    if root == Path("/"):
        return tuple(sorted(os.sched_getaffinity(0)))
    text = status_field(root, "Cpus_allowed_list")
    if text is None:
        online = root / "sys/devices/system/cpu/online"
        text = online.read_text(encoding="ascii") if online.exists() else ""
    cpus = parse_cpulist(text)
    if not cpus:
        raise ValueError(
            f"{root}: no CPUs in proc/self/status (Cpus_allowed_list) nor in sys/devices/system/cpu/online"
        )
    return cpus


def read_budget(affinity: Collection[int], online: Collection[int], root: Path = Path("/")) -> Budget:
    """Find what this process may use.

    Args:
        affinity: Its affinity mask.
        online: The machine's online CPUs.
        root: Where `proc` and `sys` lie.
    """
    allowed, cpuset_notes = _within_cpuset(affinity, root)
    quotas, notes = read_quotas(root)
    budget = make_budget(allowed, online, quotas)
    memory, memory_notes = _memory(root)
    reasons = (*budget.reasons, *cpuset_notes, *notes, *memory_notes)
    return replace(budget, reasons=reasons, memory_bytes=memory)


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
    warnings = tuple(quota.throttling for quota in quotas if quota.throttling)
    return Budget(
        cpus, tightest.cpus, effective, (reason, _quota_reason(tightest, len(cpus), effective)), warnings
    )


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


def _within_cpuset(affinity: Collection[int], root: Path) -> tuple[Collection[int], tuple[str, ...]]:
    """The kernel keeps every mask inside the cpuset; a mask that was taken down before a change may be wider."""
    # The process's own group comes first, and what is effective there holds for its ancestors, too.
    for group in cgroups_of("cpuset", root):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):
            file = group.directory / name
            if not file.exists():
                continue
            try:
                cpuset = parse_cpulist(file.read_text(encoding="ascii"))
            except (ValueError, PermissionError) as error:
                return affinity, (f"{group.name}/{name} is unreadable and was ignored: {error}",)
            inside = set(affinity) & set(cpuset)
            if not inside:
                return affinity, (f"{group.name}/{name} has no CPU of the affinity mask and was ignored",)
            return inside, (f"cpuset {format_cpulist(cpuset)} in {group.name}/{name}",)
    return affinity, ()


def _quota_reason(quota: Quota, cpus: int, effective: int) -> str:
    head = f"quota of {quota.cpus:g} CPUs in {quota.source}"
    if quota.cpus < 1:
        return f"{head}: less than one CPU, so even one thread will be throttled"
    if quota.cpus >= cpus:
        return f"{head}: no less than the CPUs can use"
    return f"{head}: {effective} of the CPUs at a time, rounded down"


def _memory(root: Path) -> tuple[int | None, tuple[str, ...]]:
    try:
        limit = memory_limit(root)
    except (ValueError, OSError) as error:
        return None, (f"the memory limit is unreadable: {error}",)
    if limit is None:
        return None, ()
    size_bytes, source = limit
    return size_bytes, (f"memory: {size_bytes / _GIB:.4g} GiB, {source}",)
