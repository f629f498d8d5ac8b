"""No process of the daemon talks to anybody but the other ones and those who ask it."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import psutil
import pytest

from predictd.client import NO_RETRIES, Client
from tests.fixtures.daemon import Daemon
from tests.fixtures.processes import family, scaled, serving, versioned


def _suspicious(daemon: Daemon) -> list[object]:
    """Sockets of the daemon's processes that reach beyond this machine, or could without a connection."""
    return [
        found
        for pid in family(daemon)
        for found in psutil.Process(pid).net_connections(kind="inet")
        if found.type == socket.SOCK_DGRAM or (found.raddr and not _is_loopback(found.raddr.ip))
    ]


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


# A user's own setting must not turn on what is off for good.
@pytest.mark.parametrize("exported", ["0", ""])
def test_nothing_is_sent_and_nothing_is_collected(exported: str, tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    home = tmp_path / "home"
    home.mkdir()
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    environment = {"ORT_DISABLE_TELEMETRY": exported, **folders}
    with (
        serving(model, "--instances", "2", folder=tmp_path / "run", environment=environment) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        for _ in range(4):
            assert _suspicious(daemon) == []
            for _ in range(50):
                assert scaled(client, "double") == 2.0
    # From its import on, ONNX Runtime's uploader would keep a queue and an id of the machine below the cache folder.
    assert list(home.rglob("*")) == []
