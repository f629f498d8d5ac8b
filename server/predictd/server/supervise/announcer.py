"""What the service manager is told, and when: the daemon's phases, its state in a line, and signs of life.

A sign of life says that the supervisor's loop goes round and that some front end answers. A model that cannot be
served stops no sign of life: starting everything anew would not mend it, and would end what works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from predictd.server.observe.escape import escape_controls
from predictd.server.observe.gauges import LaneGauge, Readiness
from predictd.server.supervise.notify import Notifier

LOOK_SECONDS = 1.0
# Models may take as long to load as load_timeout lets them; a loop that hangs meanwhile is found out after this.
EXTENSION_SECONDS = 60
_NAMED_MAX = 3
_REASON_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Sight:
    """The daemon at one look.

    Attributes:
        readiness: What /readyz says.
        settled: All that was wanted is ready or has failed, and no look at the disk is due.
        responsive: Front ends answer.
    """

    readiness: Readiness
    settled: bool
    responsive: bool


class Announcer:
    """Speaks to the service manager for as long as the daemon lives.

    Args:
        notifier: Where to.
        look: At the daemon.
        look_seconds: Between two looks.
    """

    def __init__(
        self, notifier: Notifier, look: Callable[[], Sight], look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._notifier = notifier
        self._look = look
        self._look_seconds = look_seconds
        self._phase = "starting"
        self._reloading = False
        self._status = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Speak from now on."""
        if not self._notifier.active:
            return
        self._tasks.append(asyncio.ensure_future(self._follow()))
        if self._notifier.watchdog_seconds is not None:
            self._tasks.append(asyncio.ensure_future(self._live(self._notifier.watchdog_seconds / 2)))

    async def _follow(self) -> None:
        while True:
            self.follow()
            await asyncio.sleep(self._look_seconds)

    def follow(self) -> None:
        """Look at the daemon and tell what is new."""
        self._notifier.flush()
        sight = self._look()
        if self._phase == "starting":
            self._notifier.send(EXTEND_TIMEOUT_USEC=EXTENSION_SECONDS * 10**6)
        if self._reloading and sight.settled:
            self._reloading = False
            self._notifier.send(READY=1)
        self._tell_status(sight)

    def _tell_status(self, sight: Sight) -> None:
        status = status_line("reloading" if self._reloading else self._phase, sight.readiness)
        if status != self._status:
            self._status = status
            self._notifier.send(STATUS=status)

    async def _live(self, seconds: float) -> None:
        while True:
            if self._look().responsive or self._phase == "stopping":
                self._notifier.send(WATCHDOG=1)
            await asyncio.sleep(seconds)

    def ready(self) -> None:
        """The start is over: requests are served."""
        if self._phase == "stopping":
            return
        self._phase = "serving"
        self._status = status_line(self._phase, self._look().readiness)
        self._notifier.send(READY=1, STATUS=self._status)

    def reload(self) -> None:
        """A signal asks to look at the disk. The end of that is seen at a look."""
        if self._phase == "serving":
            self._reloading = True
            self._notifier.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stop(self, seconds: float) -> None:
        """The daemon leaves, and may take so long: however the unit is set, a drain is not cut short."""
        self._phase, self._reloading = "stopping", False
        self._status = status_line(self._phase, self._look().readiness)
        self._notifier.send(STOPPING=1, STATUS=self._status, EXTEND_TIMEOUT_USEC=round(seconds * 1e6))

    async def close(self) -> None:
        """Say nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._notifier.close()


def status_line(phase: str, readiness: Readiness) -> str:
    """The daemon's state in one line, as `systemctl status` shows it."""
    lanes = readiness.lanes
    ready = sum(lane.state == "READY" for lane in lanes)
    parts = [f"{phase}: {ready} of {len(lanes)} model versions ready"]
    loading = [lane for lane in lanes if lane.state == "LOADING"]
    failed = [lane for lane in lanes if lane.state == "FAILED"]
    parts += _named("loading", [_name(lane) for lane in loading])
    parts += _named("failed", [f"{_name(lane)} ({_shortened(lane.reason)})" for lane in failed])
    if phase == "serving":
        parts += readiness.reasons
    return escape_controls("; ".join(parts))


def _named(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"{len(names) - _NAMED_MAX} more"] if len(names) > _NAMED_MAX else []
    return [f"{what}: {', '.join([*names[:_NAMED_MAX], *more])}"]


def _name(lane: LaneGauge) -> str:
    return f"{lane.model} version {lane.version}"


def _shortened(text: str) -> str:
    return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"
