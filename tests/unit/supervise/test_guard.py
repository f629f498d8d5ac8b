"""A supervisor whose event loop hangs ends itself; one that was stopped does not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

from predictd.server.supervise.guard import EXIT_STATUS, LoopGuard

HANGS = """
import asyncio, time
from predictd.server.supervise.guard import LoopGuard

def blocked() -> None:
    time.sleep(60)

async def main() -> None:
    with LoopGuard(limit=3, look_seconds=0.2):
        await asyncio.sleep(0.5)
        print("lives", flush=True)
        blocked()

asyncio.run(main())
"""
LIVES = """
import asyncio
from predictd.server.supervise.guard import LoopGuard

async def main() -> None:
    with LoopGuard(limit=4, look_seconds=0.2):
        print("lives", flush=True)
        await asyncio.sleep(3)

asyncio.run(main())
"""


def test_a_loop_that_hangs_ends_the_process_and_shows_where() -> None:
    command = [sys.executable, "-c", HANGS]
    done = subprocess.run(command, check=False, timeout=50, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (EXIT_STATUS, "lives\n")
    assert done.stderr.startswith("predictd: the supervisor's event loop has hung for 3 looks")
    assert "in blocked" in done.stderr


def test_a_process_that_was_stopped_for_longer_lives() -> None:
    process = subprocess.Popen([sys.executable, "-c", LIVES], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"lives\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            # Long enough for the limit to pass by the clock.
            time.sleep(1.5)
            process.send_signal(signal.SIGCONT)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_loop_that_goes_round_is_left_alone_and_the_guard_ends_with_it() -> None:
    ended: list[int] = []

    async def scenario() -> None:
        with LoopGuard(ended.append, limit=2, look_seconds=0.5) as guard:
            await asyncio.sleep(1.6)
        assert not guard._thread.is_alive()

    asyncio.run(scenario())
    assert ended == []
