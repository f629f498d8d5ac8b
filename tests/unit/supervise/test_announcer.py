"""What the service manager is told of a daemon that is in the state that the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from predictd.server.observe.gauges import LaneGauge, Readiness
from predictd.server.supervise.announcer import EXTENSION_SECONDS, Announcer, Sight, status_line
from predictd.server.supervise.notify import Notifier
from tests.fixtures.notify_socket import NotifySocket

LOADING = Readiness(ready=False, lanes=(LaneGauge("a", 1, "READY"), LaneGauge("b", 2, "LOADING")))
READY = Readiness(ready=True, lanes=(LaneGauge("a", 1, "READY"), LaneGauge("b", 2, "READY")))
EXTENDS = {"EXTEND_TIMEOUT_USEC": str(EXTENSION_SECONDS * 10**6)}
SERVES = "serving: 2 of 2 model versions ready"


class Scene:
    """An announcer, the daemon that it looks at, and what it told.

    Attributes:
        sight: What it sees.
    """

    def __init__(self, manager: NotifySocket, watchdog_usec: str = "") -> None:
        self.manager = manager
        self.sight = Sight(LOADING, settled=False, responsive=True)
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": watchdog_usec}
        self.announcer = Announcer(Notifier(environ, 1), lambda: self.sight, look_seconds=0.01)

    def serve(self) -> None:
        self.sight = Sight(READY, settled=True, responsive=True)
        self.announcer.ready()
        self.manager.drain()


@pytest.fixture(name="manager")
def _manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture(name="scene")
def _scene(manager: NotifySocket) -> Iterator[Scene]:
    one = Scene(manager)
    yield one
    asyncio.run(one.announcer.close())


def test_the_start_may_take_as_long_as_something_loads(scene: Scene) -> None:
    scene.announcer.follow()
    scene.announcer.follow()
    status = {"STATUS": "starting: 1 of 2 model versions ready; loading: b version 2"}
    assert scene.manager.drain() == [EXTENDS, status, EXTENDS]
    scene.sight = Sight(READY, settled=True, responsive=True)
    scene.announcer.ready()
    scene.announcer.follow()
    assert scene.manager.drain() == [{"READY": "1", "STATUS": SERVES}]


def test_a_reload_is_over_when_what_it_found_is(scene: Scene) -> None:
    scene.serve()
    scene.sight = replace(scene.sight, settled=False)
    scene.announcer.reload()
    scene.announcer.follow()
    began, status = scene.manager.drain()
    assert list(began) == ["RELOADING", "MONOTONIC_USEC"]
    assert began["RELOADING"] == "1"
    assert began["MONOTONIC_USEC"].isdigit()
    assert status == {"STATUS": SERVES.replace("serving", "reloading")}
    scene.sight = replace(scene.sight, settled=True)
    scene.announcer.follow()
    assert scene.manager.drain() == [{"READY": "1"}, {"STATUS": SERVES}]


def test_a_signal_to_look_during_the_start_is_no_reload(scene: Scene) -> None:
    scene.announcer.reload()
    assert scene.manager.drain() == []


def test_who_leaves_says_how_long_that_may_take_and_is_never_ready_again(scene: Scene) -> None:
    scene.serve()
    scene.announcer.reload()
    scene.announcer.stop(35.0)
    scene.announcer.ready()
    scene.announcer.reload()
    scene.announcer.follow()
    assert scene.manager.drain()[1:] == [
        {"STOPPING": "1", "STATUS": SERVES.replace("serving", "stopping"), "EXTEND_TIMEOUT_USEC": "35000000"}
    ]


def test_signs_of_life_come_at_half_the_interval_and_stop_when_no_front_end_answers(
    manager: NotifySocket,
) -> None:
    async def scenario() -> None:
        scene = Scene(manager, watchdog_usec="100000")
        scene.serve()
        scene.announcer.start()
        begun = time.monotonic()
        assert 2 <= await pings(manager) <= 60 * max(1, time.monotonic() - begun)
        scene.sight = replace(scene.sight, responsive=False)
        assert await pings(manager) == 0
        scene.sight = replace(scene.sight, responsive=True)
        assert await pings(manager) >= 2
        await scene.announcer.close()

    asyncio.run(scenario())


async def pings(manager: NotifySocket) -> int:
    """The signs of life in about a second, read as they come: the kernel keeps ten messages for who does not read."""
    count = 0
    for _ in range(100):
        await asyncio.sleep(0.01)
        count += manager.drain().count({"WATCHDOG": "1"})
    return count


def test_without_a_manager_no_task_is_made() -> None:
    async def scenario() -> None:
        announcer = Announcer(Notifier({}, 1), lambda: Sight(READY, settled=True, responsive=True))
        announcer.start()
        announcer.ready()
        assert announcer._tasks == []
        await announcer.close()

    asyncio.run(scenario())


def test_the_line_names_what_failed_and_what_loads_and_stays_one_short_line() -> None:
    lanes = [LaneGauge(f"m{at}", 1, "FAILED", f"bad\nfile {'x' * 500}") for at in range(5)]
    line = status_line("serving", Readiness(True, (*lanes, LaneGauge("a", 1, "READY")), ("a reason",)))
    assert line.startswith("serving: 1 of 6 model versions ready; failed: m0 version 1 (bad\\nfile xxx")
    assert line.endswith("…), 2 more; a reason")
    assert "\n" not in line
    assert len(line) < 800
