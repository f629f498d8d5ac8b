"""Looking at what this system has to confine workers with."""

from __future__ import annotations

from predictd.server.launch.sandbox import landlock, seccomp
from predictd.server.launch.sandbox.confinement import Support
from predictd.server.launch.sandbox.paths import gpu_devices


def read_support() -> Support:
    """What works in this process works in its children."""
    return Support(landlock.abi(), seccomp.is_available(), bool(gpu_devices()))
