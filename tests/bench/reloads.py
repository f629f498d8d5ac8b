"""What loading a model again and again costs in memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.client import Client
from tests.bench import proc
from tests.bench.daemon import DaemonError

if TYPE_CHECKING:
    from tests.bench.daemon import Daemon
    from tests.bench.settings import Profile
    from tests.bench.subject import Subject

_LOAD_SECONDS = 60.0
_POLL_SECONDS = 0.05
# Large models get a part of the time: to load them a hundred times takes minutes.
_HEAVY_SHARE = 3
# Of a daemon that is to reload.
ARGUMENTS = ("--model-control", "explicit", "--load-model", "*")


@dataclass(frozen=True, slots=True)
class Reloads:
    """What became of it.

    Attributes:
        count: How often the model was loaded anew.
        before_bytes: PSS of all processes.
        after_bytes: The same.
        seconds: Of one of them, on the average.
    """

    count: int
    before_bytes: int
    after_bytes: int
    seconds: float


def pss_bytes(daemon: Daemon) -> int:
    """Memory of all processes; a page that several share counts once."""
    return proc.memory_of(pid for pids in daemon.roles().values() for pid in pids).pss_bytes


def reload(daemon: Daemon, model: Subject, profile: Profile, *, heavy: bool) -> Reloads:
    """Load content that is new by its time, until the profile has enough."""
    usual = _processes(daemon)
    with Client(daemon.target) as client:

        def once() -> None:
            os.utime(model.path)
            client.load_model(model.name, deadline=_LOAD_SECONDS)

        # The first one has the daemon import what it needs for it.
        once()
        _settle(daemon, usual)
        before = pss_bytes(daemon)
        started, count = time.monotonic(), 0
        until = started + profile.reload_seconds / (_HEAVY_SHARE if heavy else 1)
        while count < profile.reloads and time.monotonic() < until:
            once()
            count += 1
        seconds = (time.monotonic() - started) / count
    _settle(daemon, usual)
    return Reloads(count, before, pss_bytes(daemon), seconds)


def _processes(daemon: Daemon) -> int:
    # One that is about to end has no title any more, so none is told by its role.
    return sum(map(len, daemon.roles().values()))


def _settle(daemon: Daemon, usual: int) -> None:
    """Wait until workers of before are gone."""
    until = time.monotonic() + _LOAD_SECONDS
    while (now := _processes(daemon)) > usual:
        if time.monotonic() > until:
            raise DaemonError(f"the daemon has {now} processes instead of {usual} a minute after a reload")
        time.sleep(_POLL_SECONDS)
