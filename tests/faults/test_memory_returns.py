"""A burst of large requests passes, and so does the memory that it needed."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from predictd.client import NO_RETRIES, Client
from predictd.engines.api import Array
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.processes import complaints

MIB = 1024 * 1024
WIDTH = 16 * 1024
ROW_BYTES = 4 * WIDTH
CALLERS = 6
_ARENA = re.compile(r"^\S+ \S+ \S+ \S+ (\d+) +/memfd:predictd-re(?:quests|sponses)", re.MULTILINE)


def mapped(daemon: Daemon) -> set[int]:
    """The shared memory that some process of the daemon has mapped or open, by inode."""
    found: set[int] = set()
    for pid in (daemon.process.pid, *daemon.children()):
        found.update(int(inode) for inode in _ARENA.findall(Path(f"/proc/{pid}/maps").read_text()))
        for link in Path(f"/proc/{pid}/fd").iterdir():
            # Others come and go meanwhile.
            with suppress(FileNotFoundError):
                if "memfd:predictd-re" in str(link.readlink()):
                    found.add(link.stat().st_ino)
    return found


def ask(daemon: Daemon, rows: int, number: int = 0) -> None:
    x: Array = np.full((rows, WIDTH), number, np.float32)
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        np.testing.assert_array_equal(client.predict("affine", {"x": x}).outputs["y"], x * 2)


def burst(daemon: Daemon, rows: int) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        for asked in [pool.submit(ask, daemon, rows, number) for number in range(4 * CALLERS)]:
            asked.result()


def test_after_a_burst_memory_is_what_it_was_before_and_the_next_burst_of_another_size_has_it(
    tmp_path: Path,
) -> None:
    model = models.affine(tmp_path / "affine.onnx", scale=2.0, bias=0.0, width=WIDTH)
    arguments = ("--instances", "2", "--frontends", "2", "--max-batch-size", "4", "--arena-keep", "400ms")
    with running(model, *arguments, "--arena-limit", "160MiB", folder=tmp_path / "run") as daemon:

        def arena_bytes() -> float:
            return daemon.metric("predictd_arena_bytes")

        start_bytes, start = arena_bytes(), mapped(daemon)
        assert 0 < start_bytes < 8 * MIB
        burst(daemon, 64)
        # On a busy machine it may be gone before we look: what came back tells what it took.
        daemon.wait_until(
            lambda: daemon.metric("predictd_arena_given_back_bytes_total") > 4 * 64 * ROW_BYTES,
            30,
            "giving back",
        )
        daemon.wait_until(lambda: arena_bytes() == start_bytes, 30, "back to the start")
        daemon.wait_until(lambda: mapped(daemon) == start, 10, "unmapped by everybody")
        # Memory for one size is of no use to the others, and numbers of segments go on where they were.
        burst(daemon, 100)
        assert daemon.metric("predictd_worker_restarts_total") == 0
        assert complaints(daemon) == []


def test_engines_give_back_what_a_burst_of_large_batches_took(tmp_path: Path) -> None:
    """While nobody asks, and while requests go on that are much smaller."""
    width = 1024
    model = models.mlp(tmp_path / "mlp.onnx", width, 2)
    arguments = ("--instances", "1", "--frontends", "1", "--max-batch-size", "1")
    with running(
        model, *arguments, "--max-request-rows", "8192", "--arena-keep", "2s", folder=tmp_path / "run"
    ) as daemon:

        def resident() -> float:
            return daemon.metric("predictd_process_resident_bytes", role="worker")

        def ask_rows(rows: int) -> None:
            with Client(daemon.grpc, retries=NO_RETRIES) as client:
                client.predict("mlp", {"x": np.zeros((rows, width), np.float32)})

        ask_rows(1)
        start = resident()
        burst_bytes = 8192 * width * 4

        def as_before() -> bool:
            return resident() - start < burst_bytes / 2

        for rows in (0, 1):
            ask_rows(8192)
            # The answer, the arena of the engine with input and hidden values.
            assert resident() - start > burst_bytes

            def is_back(smaller: int = rows) -> bool:
                if smaller:
                    ask_rows(smaller)
                return as_before()

            daemon.wait_until(is_back, 30, "back to the start")
        ask_rows(1)
        assert daemon.metric("predictd_worker_restarts_total") == 0
        assert complaints(daemon) == []
