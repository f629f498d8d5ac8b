"""The same as a user without rights: few descriptors, a small quota of pipes, a home that is read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.test_drain import stop
from tests.faults.test_load import answer_everything, mixed_jobs
from tests.faults.test_many_models import serve_many
from tests.faults.test_worker_deaths import echo_jobs, survive
from tests.fixtures.daemon import BECOME, COMMAND, running

NOBODY = 65534
DESCRIPTORS = 256
HOG = "import os; pipes = [os.pipe() for _ in range(1200)]; print(len(pipes), flush=True); input()"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user"),
]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that belongs to the user, and how a daemon is started there."""

    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture
def place() -> Iterator[Place]:
    """A home that is read-only, and no more than DESCRIPTORS descriptors unless the daemon asks for them."""
    folder = Path(tempfile.mkdtemp(prefix="predictd-nobody-"))
    limited = ("sh", "-c", f'ulimit -Sn {DESCRIPTORS} && exec "$@"', "sh", *COMMAND)
    home, run = folder / "home", folder / "run"
    home.mkdir(mode=0o555)
    run.mkdir()
    for each in (folder, run):
        os.chown(each, NOBODY, NOBODY)
    folder.chmod(0o755)
    try:
        yield Place(folder, {"user": NOBODY, "command": limited, "environment": {"HOME": str(home)}})
    finally:
        shutil.rmtree(folder)


def test_many_callers(place: Place) -> None:
    jobs = mixed_jobs(place.folder, 4000)
    with running(place.folder, folder=place.folder / "run", **place.options) as daemon:
        for pid in [daemon.process.pid, *daemon.children()]:
            assert set(psutil.Process(pid).uids()) == {NOBODY}
            limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
            soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
            assert soft == hard
            assert int(hard) > DESCRIPTORS
        answer_everything(daemon, jobs)


def test_killed_workers(place: Place) -> None:
    jobs = echo_jobs(place.folder)
    survive(place.folder, jobs, kills=4, places=2, **place.options)


def test_a_stop_under_load(place: Place) -> None:
    stop(place.folder, **place.options)


def test_200_models(place: Place) -> None:
    serve_many(place.folder, **place.options)


@contextmanager
def pipe_quota_used_up() -> Iterator[None]:
    """Another process of the user holds more pipes than the user may have at full size."""
    command = [sys.executable, str(BECOME), str(NOBODY), sys.executable, "-c", HOG]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hog:
        assert hog.stdin is not None
        assert hog.stdout is not None
        try:
            assert hog.stdout.readline() == "1200\n"
            yield
        finally:
            hog.stdin.write("\n")
            hog.stdin.flush()


def test_pipes_of_the_smallest_size(place: Place) -> None:
    """Queues, carry and completions hold a page or two: fewer requests at a time, and no other difference."""
    jobs = mixed_jobs(place.folder, 2000)
    arguments = (place.folder, "--max-batch-size", "512", "--instances", "2")
    with pipe_quota_used_up(), running(*arguments, folder=place.folder / "run", **place.options) as daemon:
        answer_everything(daemon, jobs, callers=24)
        assert "Traceback" not in daemon.output()


def test_killed_workers_with_pipes_of_the_smallest_size(place: Place) -> None:
    jobs = echo_jobs(place.folder)
    with pipe_quota_used_up():
        survive(place.folder, jobs, kills=4, places=2, callers=24, **place.options)
