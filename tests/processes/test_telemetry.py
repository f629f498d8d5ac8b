"""No process of the daemon talks to anybody but the other ones and those who ask it, from its start to its end."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.server.launch.sandbox.support import read_support
from tests.bench.proc import descendants
from tests.fixtures import models
from tests.fixtures.processes import scaled, serving, versioned

SUPPORT = read_support()


def _suspicious(pids: Iterable[int]) -> list[object]:
    """Sockets of processes that reach beyond this machine, or could without a connection."""
    return [
        found
        for pid in pids
        for found in _connections(pid)
        if found.type == socket.SOCK_DGRAM or (found.raddr and not _is_loopback(found.raddr.ip))
    ]


def _connections(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).net_connections(kind="inet"))
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _watched() -> Iterator[set[object]]:
    """What is suspicious of all that this process starts meanwhile, looked at again and again."""
    found: set[object] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found.update(_suspicious(descendants(os.getpid())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _models(folder: Path) -> Path:
    """A model for each engine that is installed."""
    root = versioned(folder, "double", {1: 2.0}).parent
    if importlib.util.find_spec("openvino") is not None:
        models.openvino_model(root / "vino.xml", models.affine(root / "source.onnx"))
    return root


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


# A user's own setting must not turn on what is off for good.
@pytest.mark.parametrize("exported", ["0", ""])
def test_nothing_is_sent_and_nothing_is_collected(exported: str, tmp_path: Path) -> None:
    root = _models(tmp_path / "models")
    home = tmp_path / "home"
    home.mkdir()
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    environment = {"ORT_DISABLE_TELEMETRY": exported, **folders}
    with (
        _watched() as seen,
        serving(root, "--instances", "2", folder=tmp_path / "run", environment=environment) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        for _ in range(4):
            for _ in range(50):
                assert scaled(client, "double") == 2.0
        # Each of them could not if it wanted to.
        if SUPPORT.seccomp:
            for pid in daemon.pids("workers"):
                assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    assert seen == set()
    # From its import on, ONNX Runtime's uploader would keep a queue and an id of the machine below the cache folder.
    assert list(home.rglob("*")) == []
