"""The daemon as a service: what a service manager is told, to the letter, and what it does when that stops."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictd.client import Client
from tests.fixtures import models
from tests.fixtures.daemon import Daemon
from tests.fixtures.notify_socket import Message, NotifySocket
from tests.fixtures.processes import X, assert_gone, family, log, versioned

# Long enough for a busy machine to send two pings in, short enough to wait for.
WATCHDOG_SECONDS = 4.0
PING = {"WATCHDOG": "1"}
SERVES = "1 of 1 model versions ready"


@pytest.fixture(name="manager")
def _manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(f"@predictd-test-{os.getpid()}-{tmp_path.name}") as manager:
        yield manager


@pytest.fixture(name="daemon")
def _daemon(manager: NotifySocket, tmp_path: Path) -> Iterator[Daemon]:
    model = versioned(tmp_path / "models", "scaled", {1: 2.0})
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6)),
    }
    daemon = Daemon(model, "--model-control", "none", folder=tmp_path / "run", environment=environment)
    try:
        yield daemon
    except BaseException:
        print(daemon.output())
        raise
    finally:
        daemon.kill()


def phases(messages: list[Message]) -> list[Message]:
    """Without what is repeated: signs of life, and extensions of the start."""
    return [message for message in messages if message != PING and list(message) != ["EXTEND_TIMEOUT_USEC"]]


def environment(pid: int) -> set[str]:
    """The names of a process's variables."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry.split(b"=", 1)[0].decode() for entry in entries}


def test_every_phase_of_its_life_is_announced_and_only_by_the_supervisor(
    daemon: Daemon, manager: NotifySocket, tmp_path: Path
) -> None:
    start = manager.until(lambda message: "READY" in message)
    assert {"EXTEND_TIMEOUT_USEC": "60000000"} in start
    first, *between, last = phases(start)
    assert first == {"STATUS": "starting: 0 of 1 model versions ready; loading: scaled version 1"}
    assert last == {"READY": "1", "STATUS": f"serving: {SERVES}"}
    # The model may be ready for a moment before the front ends are.
    assert between in ([], [{"STATUS": f"starting: {SERVES}"}])
    daemon.wait_ready()
    own = {"NOTIFY_SOCKET", "WATCHDOG_USEC"}
    told = [environment(pid) for pid in daemon.children()]
    assert len(told) >= 2
    assert all("ORT_DISABLE_TELEMETRY" in names and not own & names for names in told)

    (tmp_path / "models" / "scaled" / "2").mkdir()
    models.affine(tmp_path / "models" / "scaled" / "2" / "model.onnx", scale=3.0)
    before_usec = time.monotonic_ns() // 1000
    daemon.signal(signal.SIGHUP)
    reload = phases(manager.until(lambda message: "READY" in message))
    assert [next(iter(message)) for message in reload if list(message) != ["STATUS"]] == [
        "RELOADING",
        "READY",
    ]
    (began,) = (message for message in reload if "RELOADING" in message)
    assert began["RELOADING"] == "1"
    assert before_usec <= int(began["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    # By then the new version serves.
    assert daemon.get("/readyz") == (200, "ready\n")
    with Client(daemon.grpc) as client:
        assert client.predict("scaled", {"x": X}).version == 2

    manager.until(lambda message: message == PING, 2 * WATCHDOG_SECONDS)
    daemon.signal(signal.SIGTERM)
    end = phases(manager.until(lambda message: "STOPPING" in message))
    assert list(end[-1]) == ["STOPPING", "STATUS", "EXTEND_TIMEOUT_USEC"]
    assert end[-1]["STATUS"].startswith("stopping: ")
    assert int(end[-1]["EXTEND_TIMEOUT_USEC"]) > 30_000_000
    assert daemon.wait() == 0
    assert phases(manager.drain()) == []
    assert not [event for event in log(daemon) if event.level in ("warning", "error")]


def test_signs_of_life_survive_the_death_of_front_ends_and_end_with_a_hang_of_the_supervisor(
    daemon: Daemon, manager: NotifySocket
) -> None:
    manager.until(lambda message: "READY" in message)
    daemon.wait_ready()
    for pid in daemon.pids("front ends"):
        os.kill(pid, signal.SIGSTOP)
    daemon.wait_until(
        lambda: daemon.metric("predictd_hang_kills_total", role="frontend", reason="stopped") >= 1,
        30,
        "killed",
    )
    manager.drain()
    manager.until(lambda message: message == PING, 2 * WATCHDOG_SECONDS)

    processes = family(daemon)
    daemon.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOWAIT)
    manager.drain()
    # The whole interval without a ping: systemd ends the service, here with the signal that it resorts to.
    assert manager.receive(WATCHDOG_SECONDS) is None
    daemon.signal(signal.SIGKILL)
    assert daemon.wait() == -signal.SIGKILL
    assert_gone(processes)
