from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from predictd.server.observe.processes import Memory, cpu_seconds, memory

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def test_the_memory_of_living_processes_is_read(tmp_path: Path) -> None:
    own = memory([os.getpid()])[os.getpid()]
    assert 1_000_000 < own.anonymous_bytes < own.resident_bytes < 100_000_000_000
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("1000 250 10 1 0 100 0\n")
    assert memory([7, 8], proc=tmp_path) == {7: Memory(250 * PAGE_BYTES, 240 * PAGE_BYTES)}


def test_cpu_time_is_that_of_the_program_and_of_the_kernel_for_it(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = ["S", "1", *["0"] * 9, str(3 * TICKS_PER_SECOND), str(TICKS_PER_SECOND), "99", "98"]
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) {' '.join(fields)}\n")
    assert cpu_seconds(7, proc=tmp_path) == pytest.approx(4)
    assert cpu_seconds(8, proc=tmp_path) == 0


def test_cpu_time_is_shown_until_a_process_is_reaped() -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert cpu_seconds(process.pid) >= 0.19
