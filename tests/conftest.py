"""What holds for every test: nothing is left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# The machine is shared: how long an example takes says nothing.
settings.register_profile("predictd", deadline=None)
settings.load_profile("predictd")

# Every process that loads ONNX Runtime must be told not to phone home, the test's own too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Whether or not the C half is installed, tests mean the same: PREDICTD_FRONTEND=native runs them with it.
os.environ.setdefault("PREDICTD_FRONTEND", "grpcio")


_FAILED = pytest.StashKey[bool]()


def _descriptors() -> dict[str, str]:
    """Open descriptors that a test may leak: sockets, pipes and memfds."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(("socket:", "pipe:", "/memfd:")):
            found[entry.name] = target
    return found


def _new(before: Mapping[str, str]) -> dict[str, str]:
    return {number: target for number, target in _descriptors().items() if before.get(number) != target}


def _shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if child.is_running()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which test has failed."""
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, no shared memory and no descriptor outlives the test that made it."""
    descriptors, memory, children = _descriptors(), _shared_memory(), _children()
    yield
    # What failed is kept with all that it had, to be shown.
    left = {} if request.node.stash.get(_FAILED, False) else _new(descriptors)
    if left:
        # A collection takes a tenth of a second with everything imported: only where it may matter.
        gc.collect()
        left = _new(descriptors)
    # gRPC and the event loops of client libraries keep a few descriptors for the life of the process.
    assert len(left) < 24, f"descriptors left open: {left}"
    assert not [target for target in left.values() if target.startswith("/memfd:predictd")], left
    assert _shared_memory() <= memory, "shared memory left in /dev/shm"
    assert _children() <= children, f"processes left running: {_children() - children}"
