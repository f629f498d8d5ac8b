"""Keeping front ends alive: start, listen, restart, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence

from predictd.server.control.message import Message
from predictd.server.control.messages import (
    AnyMessage,
    Drain,
    Drained,
    Listen,
    Listening,
    Ready,
    TakeMaterial,
)
from predictd.server.control.publication import PublishModel
from predictd.server.launch.plan import ChildPlan
from predictd.server.supervise.child import Child, OnMessage, describe_exit, who
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.frontend_init import FrontendSettings, frontend_init
from predictd.server.supervise.pool import Place
from predictd.server.supervise.starter import Starter
from predictd.server.supervise.states import Event, RestartPolicy, State
from predictd.server.supervise.wiring import Wiring
from predictd.server.transport.pipes import make_pipe

MODULE = "predictd.server.frontend.main"
# A completion must never block a worker: at most half the records of the pipe are in flight, since writes
# that do not fill their pages may waste up to half of each (pipe(7)).
COMPLETION_RECORDS = 4096

_log = logging.getLogger(__name__)


class Frontends:
    """All front ends and their places.

    Args:
        publications: What a new front end is told of all models.
        credentials: That they show their clients, and tell these by.
        is_ready: Whether the daemon as a whole is ready.
        give_up: Ends the daemon, with the reason: without front ends there is no service.
        on_message: Hears what front ends say; hands what is for us to `handle`.
        on_change: Called when a front end opened its port or is drained.
        on_gone: Hears of every front end that was reaped.

    Attributes:
        places: All of them, by index.
        cut_off: A request that was accepted before the drain was lost in it.
    """

    def __init__(
        self,
        settings: FrontendSettings,
        plans: Sequence[ChildPlan],
        wiring: Wiring,
        next_id: Callable[[], int],
        publications: Callable[[], list[PublishModel]],
        credentials: Credentials,
        is_ready: Callable[[], bool],
        give_up: Callable[[str], None],
        on_message: OnMessage,
        on_change: Callable[[], None],
        on_gone: Callable[[Child], None],
    ) -> None:
        self._settings = settings
        self._wiring = wiring
        self._publications = publications
        self._credentials = credentials
        self._is_ready = is_ready
        self._give_up = give_up
        self._on_change = on_change
        self._on_gone = on_gone
        self._starter = Starter(MODULE, settings.environment, next_id, on_message, self._exited)
        self._policy = RestartPolicy()
        self._draw = random.Random()  # noqa: S311 - jitter, no secret
        self._loop = asyncio.get_running_loop()
        self._by_child: dict[int, Place] = {}
        self._told_to_listen: set[int] = set()
        self._drained: set[int] = set()
        self._drain: Drain | None = None
        self._stopping = False
        self.places = [Place(index, plan) for index, plan in enumerate(plans)]
        self.cut_off = False

    def start(self) -> None:
        """Start all of them."""
        for place in self.places:
            self._spawn(place)

    def children(self) -> list[tuple[Place, Child]]:
        """The front ends that run."""
        return [(place, place.child) for place in self._by_child.values() if place.child]

    def send_all(self, message: Message) -> None:
        """Tell all front ends that are wired."""
        for place, child in self.children():
            if place.state is not State.STARTING:
                child.send(message)

    def renew_credentials(self) -> None:
        """Hand all front ends the certificate and the tokens of now."""
        self._give_credentials(
            [child for place, child in self.children() if place.state is not State.STARTING]
        )

    def _give_credentials(self, children: Sequence[Child]) -> None:
        if not self._credentials.any:
            return
        fd = self._credentials.open()
        try:
            for child in children:
                child.send(TakeMaterial(), [fd])
        finally:
            os.close(fd)

    @property
    def all_listening(self) -> bool:
        """Every front end's port is open."""
        return all(place.state is State.SERVING for place in self.places)

    @property
    def any_listening(self) -> bool:
        """Some front end's port is open: the daemon can be reached."""
        return any(place.state is State.SERVING for place in self.places)

    def _spawn(self, place: Place) -> None:
        title = f"frontend {place.index}"
        try:
            child = self._starter.start(place, title, lambda: make_pipe(COMPLETION_RECORDS))
        except OSError as error:
            how = f"it cannot be started: {error.strerror}"
            _log.error("%s: %s", title, how)
            self._come_back(place, how)
            return
        self._by_child[child.id] = place

    def hello(self, child: Child) -> None:
        """The front end runs: tell it who it is, wire it, and tell it of all models."""
        place = self._by_child[child.id]
        if place.state is State.STOPPING:
            return
        place.move(Event.HELLO)
        assert place.pipe is not None  # noqa: S101 - made in _spawn
        child.send(
            frontend_init(self._settings, place, child.id, len(self.places)),
            [place.pipe.read_fd],
        )
        self._give_credentials([child])
        self._wiring.add_frontend(place, child)
        for publication in self._publications():
            child.send(publication)
        child.send(Ready(ready=self._is_ready()))
        place.move(Event.WARM)
        if self._wiring.is_mapped(child.id):
            self.mapped(child.id)

    def mapped(self, child_id: int) -> None:
        """Everything that concerns a child is mapped: a front end may open its port, which it does once."""
        place = self._by_child.get(child_id)
        if place is None or place.child is None or place.state is not State.MAPPING:
            return
        if child_id not in self._told_to_listen:
            self._told_to_listen.add(child_id)
            place.child.send(Listen())

    def handle(self, child: Child, message: AnyMessage) -> None:
        """A front end said something about its port."""
        place = self._by_child[child.id]
        match message:
            case Listening():
                if place.state is State.MAPPING:
                    place.move(Event.MAPPED)
                if self._drain is not None:
                    child.send(self._drain)
                self._on_change()
            case Drained(complete=complete):
                self._drained.add(child.id)
                self.cut_off = self.cut_off or not complete
                self._on_change()
            case _:
                raise TypeError(f"a front end sent {type(message).__name__}. This is a bug.")

    def _exited(self, child: Child, status: int) -> None:
        place = self._by_child.pop(child.id)
        served = place.state is State.SERVING
        asked = place.state is State.STOPPING
        self._wiring.frontend_gone(child)
        self._told_to_listen.discard(child.id)
        place.clear()
        if asked:
            place.move(Event.EXITED)
        else:
            how = describe_exit(status)
            _log.error("%s died: %s", who(child), how)
            self.cut_off = self.cut_off or (served and child.id not in self._drained and self._leaving)
            place.crashed(worked=served)
            self._come_back(place, how)
        self._on_gone(child)

    @property
    def _leaving(self) -> bool:
        return self._stopping or self._drain is not None

    def _come_back(self, place: Place, how: str) -> None:
        """Start the place again after a while, unless that was in vain too often."""
        if self._leaving:
            place.move(Event.STOP)
        elif self._policy.gives_up(place.failed_starts, place.barren_crashes):
            place.move(Event.GIVE_UP)
            self._give_up(f"front end {place.index} died {place.barren_crashes} times in a row: {how}")
        else:
            delay = self._policy.delay_seconds(place.barren_crashes, self._draw)
            self._loop.call_later(delay, self._respawn, place)

    def _respawn(self, place: Place) -> None:
        if place.state is State.BACKOFF and not self._leaving:
            self._spawn(place)

    # Stop ---------------------------------------------------------------------------------------------------

    def drain(self, lame_duck_ns: int, grace_ns: int) -> None:
        """Let every front end finish what it accepted."""
        self._drain = Drain(lame_duck_ns=lame_duck_ns, grace_ns=grace_ns)
        for place, child in self.children():
            if place.state is State.SERVING:
                child.send(self._drain)

    @property
    def all_drained(self) -> bool:
        """No front end answers any more."""
        return all(
            child.id in self._drained or place.state is not State.SERVING for place, child in self.children()
        )

    def stop(self) -> None:
        """End all front ends; nothing is restarted from here on."""
        self._stopping = True
        for place in self.places:
            place.stop()

    def kill(self) -> None:
        """Kill what is left."""
        self._stopping = True
        for _, child in self.children():
            child.kill()
