"""Where and when something was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import version


def describe() -> dict[str, str]:
    """What a reader must know of this machine to compare numbers with those of another."""
    return {
        "processor": platform.processor() or platform.machine(),
        "CPUs": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "predictd": version("predictd"),
    }


def now() -> str:
    """Date and time, with the zone."""
    return dt.datetime.now().astimezone().isoformat(timespec="seconds")
