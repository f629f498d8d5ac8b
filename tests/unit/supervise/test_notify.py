"""The datagrams of sd_notify(3), at a real socket."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from predictd.server.supervise.notify import PENDING_MAX, Notifier
from tests.fixtures.notify_socket import NotifySocket


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_is_one_datagram_of_lines(abstract: bool, tmp_path: Path) -> None:
    where = f"@predictd-test-{os.getpid()}" if abstract else tmp_path / "notify"
    with NotifySocket(where) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address}, 1)
        notifier.send(READY=1, STATUS="serving: 1 of 1 model versions ready")
        notifier.send(WATCHDOG=1)
        assert manager.drain() == [
            {"READY": "1", "STATUS": "serving: 1 of 1 model versions ready"},
            {"WATCHDOG": "1"},
        ]
        notifier.close()


def test_without_a_manager_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000000"}, 1)
    notifier.send(READY=1)
    assert not notifier.active
    assert notifier.watchdog_seconds is None
    assert caplog.messages == []
    notifier.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("30000000", "", 30.0), ("500000", "7", 0.5), ("500000", "8", None), ("", "7", None)],
)
def test_the_watchdog_is_served_by_the_process_that_it_is_meant_for(
    usec: str, pid: str, seconds: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    notifier = Notifier(environ, 7)
    assert notifier.watchdog_seconds == seconds
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:9"}, "NOTIFY_SOCKET=vsock:2:9 is neither a path nor an abstract address"),
        ({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "often"}, "WATCHDOG_USEC=often is no number"),
        ({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC=0 is no number"),
    ],
)
def test_what_makes_no_sense_is_said(
    environ: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(environ, 1)
    notifier.close()
    assert notifier.watchdog_seconds is None
    assert [message for message in caplog.messages if message.startswith(said)]


def test_a_manager_that_is_gone_is_complained_of_once_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    where = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(where)}, 1)
    notifier.send(READY=1)
    notifier.send(WATCHDOG=1)
    assert len(caplog.messages) == 1
    with NotifySocket(where) as manager:
        notifier.send(WATCHDOG=1)
        assert manager.drain() == [{"WATCHDOG": "1"}]
    notifier.send(WATCHDOG=1)
    assert len(caplog.messages) == 2
    notifier.close()


def test_what_the_manager_has_no_room_for_is_sent_later_in_order(tmp_path: Path) -> None:
    with NotifySocket(tmp_path / "notify") as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address}, 1)
        filled = fill(manager)
        notifier.send(RELOADING=1)
        notifier.send(READY=1)
        assert manager.drain() == [{"FILLER": "1"}] * filled
        notifier.flush()
        assert manager.drain() == [{"RELOADING": "1"}, {"READY": "1"}]
        fill(manager)
        for at in range(PENDING_MAX + 1):
            notifier.send(STATUS=at)
        assert {"STATUS": "0"} not in manager.drain()
        notifier.flush()
        notifier.close()


def fill(manager: NotifySocket) -> int:
    """Send until there is no room for more. Returns the number of messages."""
    filled = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler:
        while True:
            try:
                filler.sendto(b"FILLER=1\n", manager.address)
            except BlockingIOError:
                return filled
            filled += 1
