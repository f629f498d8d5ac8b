"""What identifies this machine's CPU, so that what was made for one is not used on another."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

# By the name in /proc/cpuinfo: x86 first, then Arm.
_IDENTITY = (
    ("vendor_id", "cpu family", "model", "stepping"),
    ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)
_FLAGS = ("flags", "Features")


def cpu_fingerprint() -> str:
    """A short text that two machines share when their CPUs are alike. May stand in a file's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return fingerprint_of(text, platform.machine())


def fingerprint_of(cpuinfo: str, machine: str) -> str:
    """The same for a /proc/cpuinfo, of which the first processor counts."""
    first = cpuinfo.strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    identity = next((names for names in _IDENTITY if names[0] in fields), ())
    flags = next((fields[name] for name in _FLAGS if name in fields), "")
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:8]
    parts = [machine, *(fields.get(name, "0") for name in identity), digest]
    return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in part) for part in parts)
