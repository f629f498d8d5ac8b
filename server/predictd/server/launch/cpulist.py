"""The kernel's notation for sets of CPUs, such as `0-2,5`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

CPUS_MAX = 1 << 16
"""No CPU id may reach this: eight times what Linux supports, so that a broken file cannot fill the memory."""

_ITEM = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse_cpulist(text: str) -> tuple[int, ...]:
    """Read a CPU list.

    Args:
        text: As in `/sys/devices/system/cpu/online`; empty means no CPU.

    Returns:
        The CPU ids, ascending, each once.

    Raises:
        ValueError: The text is not a CPU list.
    """
    stripped = text.strip()
    if not stripped:
        return ()
    cpus: set[int] = set()
    for item in stripped.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(
                f"not a CPU list: {text!r} (at {item!r}); expected numbers and ranges as in 0-2,5"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"not a CPU list: {text!r} (the range {item!r} runs backwards)")
        if last >= CPUS_MAX:
            raise ValueError(f"not a CPU list: {text!r} ({last} is past the highest CPU id, {CPUS_MAX - 1})")
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def format_cpulist(cpus: Iterable[int]) -> str:
    """Write CPU ids the way the kernel does: ascending, neighbours as a range, empty for no CPU."""
    ordered = sorted(set(cpus))
    if ordered and ordered[0] < 0:
        raise ValueError(f"{ordered[0]} is not a CPU id")
    # Along a run of neighbours the id and its rank grow together, so their difference names the run.
    runs = [
        [cpu for _, cpu in run]
        for _, run in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
