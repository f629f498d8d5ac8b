"""Models with external data: served, swapped under load, and refused with one line that names what is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import psutil

from tests.fixtures.daemon import Daemon, running
from tests.fixtures.external import external
from tests.fixtures.killing import eventually
from tests.fixtures.swapping import age, at_rest, calling

FILES = ("weights.bin", "parts/a.bin", "parts/b.bin")
# More than a protobuf message, and so an ONNX file, can hold.
LARGE_ROWS = (2200 << 20) // 16


def version(folder: Path, number: int, scale: float, *files: str, rows: int = 4, write: bool = True) -> Path:
    """A version that was finished long ago."""
    path = folder / str(number) / "model.onnx"
    path.parent.mkdir(parents=True)
    external(path, scale, *(files or FILES), rows=rows, write=write)
    for file in path.parent.rglob("*"):
        age(file)
    return path.parent


async def said(daemon: Daemon, *texts: str) -> None:
    """Wait for a line of the log with all these texts."""
    await eventually(
        lambda: any(all(text in line for text in texts) for line in daemon.output().splitlines()),
        f"told of {texts}",
    )


def test_external_data_is_served_swapped_and_looked_after(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root / "m", 1, 2.0)

    async def scenario(daemon: Daemon) -> None:
        async with calling(daemon, "m", {1: {2.0}, 2: {3.0}, 6: {4.0}}, callers=4) as tally:
            await tally.sees(1, 2.0)
            copied = version(tmp_path / "elsewhere", 2, 3.0)
            # The weights come one after the other, the last of them in two parts.
            target = root / "m" / "2"
            target.mkdir()
            shutil.copy2(copied / "model.onnx", target)
            await said(daemon, "version 2 of m is not loaded", "external data 'parts/a.bin' cannot be used")
            (target / "parts").mkdir()
            for name in FILES:
                shutil.copy2(copied / name, target / name)
            os.truncate(target / FILES[0], 20)
            age(target / FILES[0])
            await said(daemon, "external data 'weights.bin' is cut short: 20 of at least 64 bytes are there")
            tally.assert_all_right()
            assert set(tally.newest.values()) == {(1, 2.0)}
            shutil.copy2(copied / FILES[0], target / FILES[0])
            await tally.sees(2, 3.0)

            version(root / "m", 3, 9.0, "../secret.bin", write=False)
            (root / "m" / "secret.bin").write_bytes(bytes(64))
            await said(
                daemon, "version 3 of m is not loaded", "'../secret.bin' is outside of the model's folder"
            )
            version(root / "m", 4, 9.0, "link.bin", write=False)
            (root / "m" / "4" / "link.bin").symlink_to("../secret.bin")
            await said(daemon, "version 4 of m is not loaded", "'link.bin' is outside of the model's folder")
            tally.assert_all_right()
            assert set(tally.newest.values()) == {(2, 3.0)}
            version(tmp_path / "elsewhere", 6, 4.0).rename(root / "m" / "6")
            await tally.sees(6, 4.0)
        await eventually(lambda: at_rest(daemon), "at rest")

    with running(root, folder=tmp_path / "run") as daemon:
        asyncio.run(scenario(daemon))


def test_models_of_more_than_2_gib_are_served_and_swapped(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root / "m", 1, 2.0, "weights.bin", rows=LARGE_ROWS)

    async def scenario(daemon: Daemon) -> None:
        async with calling(daemon, "m", {1: {2.0}, 2: {3.0}}, callers=4) as tally:
            await tally.sees(1, 2.0)
            version(tmp_path / "elsewhere", 2, 3.0, "weights.bin", rows=LARGE_ROWS).rename(root / "m" / "2")
            await tally.sees(2, 3.0)
        await eventually(lambda: at_rest(daemon), "at rest")
        await eventually(lambda: len(daemon.pids("workers")) == 1, "down to one worker")
        (worker,) = daemon.pids("workers")
        resident_bytes = psutil.Process(worker).memory_info().rss
        print(f"resident: {resident_bytes >> 20} MiB for {LARGE_ROWS * 16 >> 20} MiB of weights")
        assert resident_bytes < LARGE_ROWS * 16, "weights that no request needs are not read"

    with running(root, folder=tmp_path / "run") as daemon:
        asyncio.run(scenario(daemon))
