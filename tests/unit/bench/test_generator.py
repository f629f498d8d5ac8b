"""What a process of the load generator finds out about itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from predictd.server.bench.generator import waited_for_cpu_seconds

DEADLINE_SECONDS = 30.0


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="this kernel does not tell of waiting for a CPU"
)
def test_it_knows_how_long_others_had_its_cpu() -> None:
    mine = os.sched_getaffinity(0)
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for pid in (0, other.pid):
            os.sched_setaffinity(pid, {min(mine)})
        before, until = waited_for_cpu_seconds(), time.monotonic() + DEADLINE_SECONDS
        while (waited := waited_for_cpu_seconds() - before) < 0.01 and time.monotonic() < until:
            pass
    finally:
        os.sched_setaffinity(0, mine)
        other.kill()
        other.wait()
    assert waited >= 0.01
