"""The supervisor: joins catalog, wiring, workers and front ends, and speaks for the daemon."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

from predictd.server.config.settings import Settings
from predictd.server.control.commands import (
    LoadModel,
    Reload,
    ServeList,
    SetLabel,
    SetLogLevel,
    SetSplit,
    UnloadModel,
)
from predictd.server.control.memory import Growth, GrowthRequest, SegmentAdded, SegmentRetired
from predictd.server.control.messages import (
    Ack,
    AnyMessage,
    ClaimTable,
    FrontendCounts,
    Hello,
    Pong,
    Ready,
    StatisticsRequest,
    WorkerCounts,
)
from predictd.server.launch.memory import MemoryHeadroom
from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.gauges import Gauges, Readiness
from predictd.server.observe.history import History
from predictd.server.observe.status import Overview
from predictd.server.repository.bounds import roots
from predictd.server.repository.models import Scan
from predictd.server.repository.watch import untuned
from predictd.server.supervise.arenas import Arenas
from predictd.server.supervise.assembly import Planner
from predictd.server.supervise.believable import check_descriptors, check_sender
from predictd.server.supervise.catalog import Catalog
from predictd.server.supervise.changes import Changes
from predictd.server.supervise.child import Child
from predictd.server.supervise.commands import Commands
from predictd.server.supervise.counts import Counts
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.directing import Director
from predictd.server.supervise.frontend_init import frontend_settings
from predictd.server.supervise.frontends import Frontends
from predictd.server.supervise.growth import GrowthPolicy
from predictd.server.supervise.housing import Housing
from predictd.server.supervise.keeper import Keeper
from predictd.server.supervise.lanes import Lanes
from predictd.server.supervise.limits import work_limit
from predictd.server.supervise.loads import LoadJournal, Restored
from predictd.server.supervise.log_level import LogLevelControl
from predictd.server.supervise.overview import overview
from predictd.server.supervise.pool import Place
from predictd.server.supervise.ports import ReservedPort
from predictd.server.supervise.snapshot import snapshot
from predictd.server.supervise.state_file import StateFile
from predictd.server.supervise.states import State
from predictd.server.supervise.tasks import Tasks
from predictd.server.supervise.watching import WORKER, Watch
from predictd.server.supervise.wiring import Wiring
from predictd.server.supervise.worker_init import worker_settings
from predictd.server.supervise.workers import Workers
from predictd.server.transport.abi import ABI_VERSION

STOP_SECONDS = 5.0


class Supervisor:
    """Everything between start and stop.

    Attributes:
        settled: Every lane of the start-up configuration was warm or had failed, and every port was open. Stays true.
        plan: Of the children at the start.
        history: The last minutes in numbers.
        tasks: Those that run until `stop`.
        fatal: Why the daemon cannot go on; None while it can.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        planner: Planner,
        wanted: Restored,
        port: ReservedPort,
        state: StateFile | None = None,
        tune: Callable[[Scan], Scan] = untuned,
    ) -> None:
        sight = wanted.sight
        housing = Housing(settings, planner)
        made = housing.start(sight)
        self.plan = made.plan
        self.settled = False
        self.fatal: str | None = None
        self._changes = Changes()
        self._settings = settings
        self._credentials = credentials
        self._draining = False
        self._was_ready = False
        self._started_unix = time.time()
        self._budget = planner.budget
        self.history = History(time.monotonic())
        self._ids = itertools.count(1)
        self.tasks = Tasks(self.give_up)
        self._growth = GrowthPolicy(settings.arena_limit_bytes, MemoryHeadroom())
        self._pools = made.pools
        self.catalog = Catalog(made.records, roots(settings.paths))
        self._wiring = Wiring(self._mapped, lambda lane: self.tasks.spawn(self._lanes.end_lane(lane)))
        self._workers = self._make_workers()
        self._frontends = self._make_frontends(port)
        self._arenas = Arenas(self._growth, self._workers, self._frontends)
        self.log_level = LogLevelControl(settings.log_level, self._children)
        self._watch = Watch(
            settings.hang_timeout_ns / 1e9,
            lambda: [(place, child) for _, place, child in self._workers.children()],
            self._frontends.children,
            partial(work_limit, settings, self.catalog),
        )
        self.counts = Counts(Aggregate(), self._children)
        self._director = Director(
            self.catalog, state, self._wiring.publish, tfs_unready_labels=settings.tfs_unready_labels
        )
        self._lanes = self._make_lanes(housing)
        self.keeper = Keeper(
            settings.paths,
            sight,
            self.catalog,
            self._lanes,
            polls=settings.model_control == "poll",
            chosen=sight.scan.names if settings.model_control == "explicit" else None,
            tune=tune,
            overrides=wanted.overrides,
        )
        self._commands = Commands(
            self.keeper,
            self,
            self.counts.collect,
            self._director.replace_labels,
            LoadJournal(state),
            self.catalog.public,
        )
        self._lanes.take_labels(sight)

    def _make_workers(self) -> Workers:
        return Workers(
            worker_settings(self._settings, self._growth.limit_bytes),
            self.catalog,
            self._wiring,
            self._next_id,
            self._publish,
            lambda record: self._lanes.isolate(record),  # noqa: PLW0108 - they are made later
            self._on_message,
            self._gone,
        )

    def _make_frontends(self, port: ReservedPort) -> Frontends:
        return Frontends(
            frontend_settings(self._settings, port, self._growth.limit_bytes),
            self.plan.frontends,
            self._wiring,
            self._next_id,
            publications=self.catalog.publications,
            credentials=self._credentials,
            is_ready=lambda: self.ready,
            give_up=self.give_up,
            on_message=self._on_message,
            on_change=self._check,
            on_gone=self._gone,
        )

    def _make_lanes(self, housing: Housing) -> Lanes:
        return Lanes(
            self.catalog,
            housing,
            self._workers,
            self._wiring,
            self.counts,
            self._director,
            self._settings,
            known=lambda: self.keeper.models,
            settled=lambda: self.settled,
            publish=self._publish,
            on_ended=self._check,
        )

    def start(self) -> None:
        """Start every child."""
        for pool in self._pools:
            self._workers.add_pool(pool)
        for sighting in self.keeper.sightings:
            self._lanes.start_stand_in(sighting.model, sighting.version, sighting.fingerprint)
        self._frontends.start()
        self.tasks.spawn(self.counts.run(self._counted))
        self.tasks.spawn(self._watch.run())
        self.tasks.spawn(self._credentials.run(self._frontends.renew_credentials))
        self.tasks.spawn(self._keep())

    async def _keep(self) -> None:
        """Once everything of the start is settled, follow what changes on disk."""
        await self.wait(lambda: self.settled)
        await self.keeper.run()

    # News ---------------------------------------------------------------------------------------------------

    def _next_id(self) -> int:
        return next(self._ids)

    def _places(self) -> list[tuple[Place, Child]]:
        workers = [(place, child) for _, place, child in self._workers.children()]
        return [*workers, *self._frontends.children()]

    def _children(self) -> list[Child]:
        """All children that can be spoken to."""
        return [child for place, child in self._places() if place.state is not State.STARTING]

    def _on_message(self, child: Child, message: AnyMessage, fds: list[int]) -> None:  # noqa: C901, PLR0912 - one case a message
        check_descriptors(message, fds)
        if self._workers.has(child):
            check_sender(message)
        match message:
            case Hello(abi=abi):
                self._hello(child, abi)
            case Ack(seq=seq):
                self._wiring.acknowledged(seq)
            case GrowthRequest(size_bytes=size_bytes):
                refusal = self._arenas.decide(child, size_bytes)
                child.send(Growth(granted=refusal is None, reason=refusal or ""))
            case SegmentAdded():
                self._arenas.made(child, message, fds[0])
                self._wiring.segment_added(child, message, fds[0])
            case SegmentRetired(pool=pool, segment=segment):
                self._wiring.segment_retired(child, pool, segment)
            case ClaimTable():
                self._wiring.claims(child, fds[0])
            case Pong():
                self._watch.heard(child)
            case WorkerCounts() | FrontendCounts():
                self.counts.counted(child, message)
            case StatisticsRequest():
                self.tasks.spawn(self.counts.answer(child, message))
            case SetLabel() | SetSplit():
                self.tasks.spawn(self._director.change(child, message))
            case SetLogLevel():
                self.tasks.spawn(self.log_level.answer(child, message, self.counts.collect))
            case LoadModel() | UnloadModel() | Reload() | ServeList():
                self.tasks.spawn(self._commands.answer(message, child.send))
            case _ if self._workers.has(child):
                self._workers.handle(child, message)
            case _:
                self._frontends.handle(child, message)

    def _hello(self, child: Child, abi: int) -> None:
        state = next(place.state for place, one in self._places() if one is child)
        if state is State.STOPPING:
            # It was told to leave before it was heard: it is asked for nothing more, whatever it is.
            return
        if state is not State.STARTING:
            raise TypeError("it has said hello before")
        if abi != ABI_VERSION:
            self.give_up(f"{child.title} speaks version {abi} of the transport, the supervisor {ABI_VERSION}")
        elif self._workers.has(child):
            self._workers.hello(child)
        else:
            self._frontends.hello(child)
        self.log_level.greet(child)

    def _mapped(self, child_id: int) -> None:
        self._workers.mapped(child_id)
        self._frontends.mapped(child_id)

    def _publish(self, model: str) -> None:
        self._frontends.send_all(self.catalog.publication(model))
        self._check()

    def _gone(self, child: Child) -> None:
        """A child was reaped: nobody waits for what it owed."""
        self.counts.forget(child.id)
        self._growth.settle(child.id)
        self._lanes.forget_ended()

    def give_up(self, reason: str) -> None:
        """The daemon cannot go on. The first reason counts."""
        self.fatal = self.fatal or reason
        self._changes.note()

    def _check(self) -> None:
        """Something happened that readiness, or whoever waits, may depend on."""
        self.settled = self.settled or (self.catalog.settled and self._frontends.all_listening)
        if self.ready != self._was_ready:
            self._was_ready = self.ready
            self._frontends.send_all(Ready(ready=self._was_ready))
        if self.settled and not self._draining:
            self.keeper.reconcile()
        self._changes.note()

    # State --------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Requests are served: all was settled, a port is open, a lane is ready, and nobody asked us to leave.

        Where models come and go by command, a daemon without any is ready to be told.
        """
        able = self.catalog.serving or self.keeper.explicit
        return self.settled and self._frontends.any_listening and able and not self._draining

    @property
    def responsive(self) -> bool:
        """Front ends answer the supervisor, or have had no time to yet."""
        return self._watch.frontends_answer

    @property
    def draining(self) -> bool:
        """We were asked to leave."""
        return self._draining

    def has_lane(self, lane: int) -> bool:
        """Whether a lane is still there."""
        return self.catalog.find(lane) is not None

    def readiness(self) -> Readiness:
        """What /readyz says."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        if not self._frontends.all_listening:
            reasons.append("a front end has not opened its port")
        return self.catalog.readiness(ready=self.ready, reasons=tuple(reasons))

    def gauges(self) -> Gauges:
        """What /metrics shows of this moment."""
        kills = self._watch.kills.copy()
        kills[WORKER, "load_timeout"] += self._workers.load_timeouts
        return snapshot(
            self.readiness(),
            self._started_unix,
            list(self._workers.pools.values()),
            self._workers.children(),
            self._frontends.places,
            self.counts.in_flight,
            kills,
            self._growth,
            [gpu for gpus in self.counts.gpus.values() for gpu in gpus],
            self._credentials,
        )

    def overview(self) -> Overview:
        """What the status page shows beside that."""
        pools = list(self._workers.pools.values())
        return overview(self.catalog.publications(), pools, self._frontends.places, self.plan, self._budget)

    def _counted(self) -> None:
        self.history.look(
            self.counts.aggregate,
            time.monotonic(),
            in_flight=sum(self.counts.in_flight.values()),
        )

    # End ----------------------------------------------------------------------------------------------------

    async def drain(self) -> bool:
        """Let the front ends finish what they accepted. False when something of that was cut off."""
        self._draining = True
        self._check()
        timeout_ns = self._settings.drain_timeout_ns
        grace_ns = timeout_ns - self._settings.lame_duck_ns
        self._frontends.drain(self._settings.lame_duck_ns, grace_ns)
        drained = await self.wait(lambda: self._frontends.all_drained, timeout_ns / 1e9 + 1)
        if drained:
            await self.counts.collect()
        return drained and not self._frontends.cut_off

    async def stop(self) -> None:
        """End every child, the stubborn ones by force."""
        await self.tasks.stop()
        self._frontends.stop()
        self._workers.stop()
        if not await self.wait(lambda: not self._alive(), STOP_SECONDS):
            self.kill()
            await self.wait(lambda: not self._alive(), STOP_SECONDS)
        self._wiring.close()

    def kill(self) -> None:
        """End every child at once."""
        self._frontends.kill()
        self._workers.kill()

    def _alive(self) -> bool:
        return bool(self._workers.children() or self._frontends.children())

    async def wait(self, condition: Callable[[], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until a condition on our state holds. False when the time-out came first."""
        return await self._changes.wait(condition, timeout_seconds)
