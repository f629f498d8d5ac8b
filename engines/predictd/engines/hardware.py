"""What this CPU is, in one short text: results made for one CPU are keyed by it, and ignored on another."""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# x86, then Arm, then RISC-V, POWER and Z: whatever of them a processor's paragraph has.
_IDENTITY = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    *("isa", "uarch", "cpu", "revision", "machine"),
)
_FEATURES = ("flags", "Features", "features")
# Of x86 only what code is chosen by: a new kernel names more mitigations and features, and the CPU stays what it is.
_COMPUTING = re.compile(
    r"s?sse|pni$|avx|amx|fma|f16c$|bmi|aes$|vaes|gfni|v?pclmul|sha|popcnt|abm$|movbe|adx|lm$"
)


def cpu_fingerprint() -> str:
    """The CPU's fingerprint: letters, digits and dashes, such as `x86_64-AuthenticAMD-26-2-1-0f3a9c41d2e8`.

    Raises:
        OSError: `/proc/cpuinfo` cannot be read.
    """
    return fingerprint(_CPUINFO.read_text(errors="replace"), platform.machine())


def fingerprint(cpuinfo: str, machine: str) -> str:
    """The fingerprint of what `/proc/cpuinfo` says.

    CPUs of several kinds in one machine, such as big and little cores, are all in it; their number is not.
    """
    processors = {_identity(paragraph) for paragraph in cpuinfo.split("\n\n")} - {((), ())}
    kinds = sorted({identity for identity, _ in processors})
    readable = [value for identity in kinds for value in identity]
    digest = hashlib.sha256(repr(sorted(processors)).encode()).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_]+", "-", "-".join([machine, *readable, digest]))


def _identity(paragraph: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What one processor is, and what it can compute with."""
    fields = {}
    for line in paragraph.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    features = " ".join(fields.get(name, "") for name in _FEATURES).split()
    if "flags" in fields:
        features = [feature for feature in features if _COMPUTING.match(feature)]
    return tuple(fields[name] for name in _IDENTITY if fields.get(name)), tuple(sorted(set(features)))
