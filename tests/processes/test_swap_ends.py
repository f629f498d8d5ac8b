"""Hot swaps that are asked for, and daemons that are left or killed in the midst of one."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.daemon import running
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.killing import eventually
from tests.fixtures.swapping import (
    SCALES,
    at_rest,
    calling,
    complaints,
    gated,
    move,
    retiring,
    said,
    two_versions,
    version,
)


def test_without_polling_a_hangup_is_what_loads(tmp_path: Path) -> None:
    async def scenario() -> None:
        root, folder, aside = two_versions(tmp_path)
        with running(root, "--model-control", "none", folder=tmp_path / "run") as daemon:
            async with calling(daemon, "m", SCALES) as tally:
                move(aside, folder / "2")
                # Longer than a poll would take.
                await asyncio.sleep(1.5)
                assert not complaints(daemon, "loading m version 2")
                daemon.signal(signal.SIGHUP)
                await tally.sees(2, 5.0)
            tally.assert_all_right()

    asyncio.run(scenario())


def test_a_drain_ends_a_swap_that_loads(tmp_path: Path) -> None:
    root, folder, _ = two_versions(tmp_path)
    with running(root, folder=tmp_path / "run") as daemon:
        gated(tmp_path / "never", load_gate=tmp_path / "no such gate")
        move(tmp_path / "never", root / "never")
        daemon.wait_until(lambda: len(daemon.pids("workers")) == 2, 60, "loading")
        assert folder.exists()
        assert daemon.stop() == 0


def test_a_drain_finishes_what_a_retiring_version_has_in_flight(tmp_path: Path) -> None:
    async def scenario() -> None:
        root, _, _ = two_versions(tmp_path)
        gate = tmp_path / "gate"
        gated(root / "slow", run_gate=gate)
        with running(root, folder=tmp_path / "run") as daemon:
            async with retiring(daemon, root / "slow") as (_, held):
                daemon.signal(signal.SIGTERM)
                await eventually(lambda: complaints(daemon, "draining"), "draining")
                gate.touch()
                assert (await held).outputs["y"].tolist() == [[HOLD]]
            assert await asyncio.to_thread(daemon.wait) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "workers"), [([], 2), (["--pools", "shared", "--instances", "2"], 2)], ids=["own", "shared"]
)
def test_workers_killed_in_a_swap_cost_no_request(tmp_path: Path, options: list[str], workers: int) -> None:
    async def scenario() -> None:
        root, folder, _ = two_versions(tmp_path)
        version(root / "n", 1, 7.0)
        scales = {number: [2.0 * number + 1] for number in range(1, 6)}
        with running(root, *options, folder=tmp_path / "run") as daemon:
            async with calling(daemon, "m", scales) as tally:
                await tally.sees(1, 3.0)
                for number in range(2, 6):
                    before = daemon.pids("workers")
                    move(version(tmp_path / "next", number, 2.0 * number + 1), folder / str(number))
                    await eventually(partial(said, daemon, f"loading m version {number}"), "loading")
                    # In turn one that serves and, where the new version has workers of its own, one of those.
                    os.kill((before if number % 2 else daemon.pids("workers"))[-1], signal.SIGKILL)
                    await tally.sees(number, 2.0 * number + 1)
                    await eventually(partial(at_rest, daemon), "at rest")
                    await eventually(lambda: len(daemon.pids("workers")) == workers, "as many as before")
            tally.assert_all_right()

    asyncio.run(scenario())


def test_a_front_end_killed_in_a_swap_does_not_hold_it_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        root, folder, aside = two_versions(tmp_path)
        with running(root, folder=tmp_path / "run") as daemon:
            for number in range(4):
                async with calling(daemon, "m", SCALES) as tally:
                    await tally.sees(*((2, 5.0) if number % 2 else (1, 3.0)))
                    move(folder / "2", aside) if number % 2 else move(aside, folder / "2")
                    text = ("loading m version", "retiring m version")[number // 2]
                    seen = len(complaints(daemon, text))
                    await eventually(partial(said, daemon, text, seen + 1), text)
                    os.kill(daemon.pids("front ends")[0], signal.SIGKILL)
                # Its callers were cut off, which is all that they may have noticed.
                assert not tally.wrong
                assert all(failure.startswith("UNAVAILABLE") for failure in tally.failures), tally.failures
                await eventually(lambda: len(daemon.pids("workers")) == 1, "swapped")
                await eventually(partial(at_rest, daemon), "at rest")
            async with calling(daemon, "m", SCALES) as tally:
                await tally.sees(1, 3.0)
            tally.assert_all_right()

    asyncio.run(scenario())
