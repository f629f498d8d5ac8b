"""Hot swap from outside: whatever happens to the repository, callers get whole answers of one content, or notice nothing."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually
from tests.fixtures.swapping import Tally, at_rest, calling, version

SCALES = {1: [3.0], 2: [5.0]}
SHARED_MODELS = 20


def descriptors(daemon: Daemon) -> dict[str, int]:
    """How many the supervisor and the front ends have open."""
    pids = [daemon.process.pid, *daemon.pids("front ends")]
    return {f"process {pid}": len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids}


def resident_bytes(daemon: Daemon) -> int:
    """Of all processes of the daemon."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [daemon.process.pid, *daemon.children()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def move(source: Path, target: Path) -> None:
    """As mv within a file system does it."""
    source.rename(target)


async def swap(daemon: Daemon, tally: Tally, folder: Path, aside: Path, workers: int = 1) -> None:
    """Put version 2 there, or take it away, and wait until that is over."""
    target = folder / "2"
    if target.exists():
        move(target, aside)
        await tally.sees(1, 3.0)
    else:
        move(aside, target)
        await tally.sees(2, 5.0)
    await eventually(partial(at_rest, daemon), "at rest")
    await eventually(lambda: len(daemon.pids("workers")) == workers, f"down to {workers} workers")


def two_versions(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A repository that serves version 1 of `m`; its folder; and version 2 beside the repository."""
    root = tmp_path / "models"
    version(root / "m", 1, 3.0)
    return root, root / "m", version(tmp_path / "aside", 2, 5.0)


async def swaps(tmp_path: Path, number: int, checked: int) -> tuple[list[int], list[dict[str, int]]]:
    """Swap so often under load. Gives resident memory and descriptors after swap `checked` and the last."""
    root, folder, aside = two_versions(tmp_path)
    memory, open_files = [], []
    with running(root, folder=tmp_path / "run") as daemon:
        async with calling(daemon, "m", SCALES) as tally:
            for at in range(1, number + 1):
                await swap(daemon, tally, folder, aside)
                if at in (checked, number):
                    memory.append(resident_bytes(daemon))
                    open_files.append(descriptors(daemon))
        tally.assert_all_right()
        print(f"{tally.answered} answers; memory {memory}; descriptors {open_files}")
    return memory, open_files


def test_no_request_notices_swaps_of_its_model_but_by_the_version(tmp_path: Path) -> None:
    _, (early, late) = asyncio.run(swaps(tmp_path, 12, 4))
    # A connection more or less is no leak; a pipe a swap is.
    assert all(late[process] <= early[process] + 4 for process in late), (early, late)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_swaps_cost_no_request_and_no_memory(tmp_path: Path) -> None:
    memory, (early, late) = asyncio.run(swaps(tmp_path, 100, 10))
    assert memory[1] <= 1.05 * memory[0], memory
    assert all(late[process] <= early[process] + 4 for process in late), (early, late)
