"""Whether a process is kept from going on, as the kernel shows its threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from predictd.server.supervise.held_back import Activity, held_back, read_activity


def thread(proc: Path, number: int, state: str, ticks: int) -> None:
    folder = proc / "7" / "task" / str(number)
    folder.mkdir(parents=True)
    fields = [state, *["0"] * 10, str(ticks - 1), "1", *["0"] * 30]
    (folder / "stat").write_text(f"{number} (a) S (b) {' '.join(fields)}\n")


@pytest.mark.parametrize(("states", "waits"), [("SS", False), ("SR", True), ("DS", True), ("TS", False)])
def test_all_threads_are_looked_at(tmp_path: Path, states: str, waits: bool) -> None:
    for number, state in enumerate(states, 1):
        thread(tmp_path, number, state, 100 * number)
    activity = read_activity(7, tmp_path)
    assert activity is not None
    assert activity.waits is waits
    assert activity.cpu_seconds == pytest.approx(300 / os.sysconf("SC_CLK_TCK"))


def test_a_process_that_is_gone_shows_nothing(tmp_path: Path) -> None:
    assert read_activity(7, tmp_path) is None


def test_a_process_that_computes_is_told_from_one_that_sleeps() -> None:
    code = "import sys, time\nsys.stdin.readline()\nwhile time.process_time() < 30: pass"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            deadline = time.monotonic() + 30
            while (activity := read_activity(process.pid)) is None or activity.waits:
                assert time.monotonic() < deadline
            process.stdin.write(b"\n")
            process.stdin.flush()
            while not (now := read_activity(process.pid)) or now.cpu_seconds < activity.cpu_seconds + 0.05:
                assert time.monotonic() < deadline
            assert now.waits
        finally:
            process.kill()


def test_who_wants_a_cpu_and_got_none_is_held_back() -> None:
    before = Activity(1.0, waits=True)
    assert held_back(before, Activity(1.01, waits=True))
    assert not held_back(before, Activity(1.02 + 1e-6, waits=True)), "it had its turn"
    assert not held_back(before, Activity(1.0, waits=False)), "it waits for something else"
    assert not held_back(None, Activity(1.0, waits=True)), "nobody knows what it had"
    assert not held_back(before, None)
