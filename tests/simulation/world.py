"""One schedule from boot to exit: the real supervisor, front ends and workers, and who of them takes the next step."""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import os
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from predictd.server.control.messages import Ping
from predictd.server.supervise.blame import BLAME_LIMIT
from predictd.server.transport import allocator
from predictd.server.transport.records import COMPLETION_STRUCT, Status
from tests.simulation.child import SimulatedChild
from tests.simulation.clients import Client
from tests.simulation.clock import Clock
from tests.simulation.coverage import Coverage
from tests.simulation.daemon import supervisor_of
from tests.simulation.frontend_process import FrontendProcess
from tests.simulation.kernel import MODULES, Powered
from tests.simulation.loop import Loop, Running
from tests.simulation.models import Models
from tests.simulation.ownership import Ownership
from tests.simulation.process import Process
from tests.simulation.rest import unrest
from tests.simulation.schedule import MS, Schedule
from tests.simulation.strand import KilledError, Strand
from tests.simulation.worker_process import WorkerProcess

STEPS_MAX = 60_000
QUIET_WITHIN_NS = 15_000 * MS
REAPED_WITHIN_NS = (MS // 50, 5 * MS)
LOOK_AGAIN_NS = MS
# Often enough to come between any two steps of a request.
GIVE_BACK_EVERY_NS = MS // 4

_COMPLETION = struct.Struct(COMPLETION_STRUCT)

Replacement = tuple[object, str, object]


class ViolationError(BaseException):
    """What must never be has happened. No handler of the product's may take it for an error of its own."""


class World(Ownership):
    """Runs one schedule.

    Args:
        schedule: What happens.
        mutations: Defects to plant: module or class, name, and what stands there instead.

    Attributes:
        client: Who asks.
        deaths: Of each request, the workers that died while they ran it.
        lane_deaths: The same of lanes.
        killed_frontends: How many.
        worker_deaths: How many, the last ones of the stop included.
        models: What is served.
        reached: How often each point was passed.
        coverage: What happened to whom in which situation.
        leaving: The daemon was told to.
    """

    def __init__(self, schedule: Schedule, mutations: Sequence[Replacement] = ()) -> None:
        super().__init__()
        self.schedule = schedule
        self.clock = Clock()
        self.draw = random.Random(schedule.seed ^ 0x5EED)
        self.children: list[SimulatedChild] = []
        self.deaths: Counter[int] = Counter()
        self.lane_deaths: Counter[int] = Counter()
        self.killed_frontends = 0
        self.worker_deaths = 0
        self.reached: Counter[str] = Counter()
        self.coverage = Coverage(self)
        self.lines: list[str] = []
        self.leaving = False
        self.violation: ViolationError | None = None
        self.steps = 0
        self._completed: set[tuple[int, int, int]] = set()
        self._mutations = mutations
        self._doomed: dict[Process, int] = {}
        self._timeline: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._weights: dict[object, float] = {}
        self.loop = Loop(self.clock, lambda message, error: self.violated(f"supervisor: {message}", error))
        self.models = Models(self)
        self.client = Client(self)

    # Life -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play the schedule. Raises ViolationError."""
        with Powered.by(self):
            try:
                self._boot()
                self._play()
                self._leave()
            finally:
                for child in self.children:
                    child.process.alive = False
                    child.process.unwind()
                    for fd in list(child.process.descriptors):
                        self.close(child.process, fd)
                    for _, fds in (*child.process.inbox, *child.process.outbox):
                        self.supervisor_descriptors.update(fds)
                self.supervisor.kill()
                for fd in list(self.supervisor_descriptors):
                    os.close(fd)
                self.loop.close()

    def _boot(self) -> None:
        with Running(self.loop):
            self.supervisor = supervisor_of(self.schedule, self.models.sight, self.draw)
            self.supervisor.start()
        self.run_until("the daemon is ready", lambda: self.supervisor.ready and self.at_rest())

    def _play(self) -> None:
        self.client.begin()
        begin_ns = self.clock.now_ns
        if self.schedule.forgetful:
            for moment_ns in range(0, self.schedule.end_ns + 10 * MS, GIVE_BACK_EVERY_NS):
                self.at(begin_ns + moment_ns, self._give_back)
        for fault in self.schedule.faults:
            self.at(begin_ns + fault.at_ns, functools.partial(self.client.troubles.strike, fault))
        drained: asyncio.Task[bool] | None = None
        if self.schedule.drain_at_ns:
            self.run_until("", lambda: self.clock.now_ns >= begin_ns + self.schedule.drain_at_ns)
            self.coverage.strikes("DRAIN")
            self.leaving = True
            with Running(self.loop):
                drained = self.loop.create_task(self.supervisor.drain())
        end_ns = begin_ns + self.schedule.end_ns
        self.run_until("every request ended", lambda: self.clock.now_ns >= end_ns and self.client.all_ended)
        self.client.troubles.armed.clear()
        if drained is not None:
            self.run_until("the drain ended", drained.done)
        self.client.judge()

    def _give_back(self) -> None:
        """Have everybody look whether there is memory to spare, as the supervisor's pings do in their time."""
        for child in self.children:
            child.send(Ping())

    def _leave(self) -> None:
        if not self.leaving:
            self.run_until("everything is at rest", self.at_rest)
            self.client.count()
            self.leaving = True
            with Running(self.loop):
                drained = self.loop.create_task(self.supervisor.drain())
            frontends = self.killed_frontends
            self.run_until("the drain ended", drained.done)
            if not drained.result() and frontends == self.killed_frontends:
                self.violated("the drain of an idle daemon cut something off")
        with Running(self.loop):
            stopped = self.loop.create_task(self.supervisor.stop())
        self.run_until("the daemon ended", stopped.done)
        stopped.result()
        self.coverage.ends()
        if self.supervisor.fatal is not None:
            self.violated(f"the daemon gave up: {self.supervisor.fatal}")
        if self.supervisor_descriptors:
            self.violated(f"the supervisor left {len(self.supervisor_descriptors)} descriptors open")

    def at_rest(self) -> bool:
        """Nothing is under way and nothing is kept."""
        return not unrest(self)

    # Steps ----------------------------------------------------------------------------------------------------

    def run_until(self, what: str, done: Callable[[], bool]) -> None:
        """Take steps until something is so. What it takes is bounded."""
        last_ns = self.clock.now_ns + QUIET_WITHIN_NS
        while not done():
            self.steps += 1
            if self.steps > STEPS_MAX or self.clock.now_ns > last_ns:
                self.violated(f"not within bounds: {what}; {'; '.join(unrest(self))}")
            self._step()

    def _step(self) -> None:
        if self.violation is not None:
            raise self.violation
        self.clock.pass_ns(self.draw.randrange(200, 4000))
        actors: list[Any] = [self, *(child.process for child in self.children if child.process.runs)]
        actors.sort(key=lambda actor: self.draw.random() * self._weight(actor))
        for actor in actors:
            if actor.step():
                return
        moments = [actor.wakes_ns for actor in actors]
        wakes_ns = min((moment for moment in moments if moment is not None), default=None)
        if wakes_ns is None:
            self.violated(f"nothing will ever happen again; {'; '.join(unrest(self))}")
        else:
            self.clock.pass_until(wakes_ns)

    def _weight(self, actor: object) -> float:
        """Some are quick, some are slow."""
        weight = self._weights.get(actor)
        if weight is None:
            weight = self._weights[actor] = self.draw.choice([1.0, 1.0, 3.0, 0.3])
        return weight

    def step(self) -> bool:
        """What is due; the supervisor's mail; the supervisor's loop."""
        if self._timeline and self._timeline[0][0] <= self.clock.now_ns:
            heapq.heappop(self._timeline)[2]()
            self.settle_deaths()
            return True
        talkers = [child for child in self.children if child.process.outbox and not child.over]
        if talkers and (self.draw.random() < 0.5 or not self.loop.busy):
            with Running(self.loop):
                self.draw.choice(talkers).hear()
            self.settle_deaths()
            return True
        if self.loop.busy:
            self.loop.turn()
            self.settle_deaths()
            return True
        return False

    @property
    def wakes_ns(self) -> int | None:
        moments = [self.loop.wakes_ns, self._timeline[0][0] if self._timeline else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def at(self, moment_ns: int, action: Callable[[], None]) -> None:
        """Do something at a moment."""
        heapq.heappush(self._timeline, (moment_ns, next(self._numbers), action))

    # Processes ------------------------------------------------------------------------------------------------

    def child(self, *arguments: Any, **options: Any) -> SimulatedChild:
        """Stands for the class `Child`."""
        return SimulatedChild(self, *arguments, **options)

    def joined(self, child: SimulatedChild) -> None:
        """A process was started."""
        self.children.append(child)

    def frontends(self) -> list[FrontendProcess]:
        """Those that live."""
        return [p for c in self.children if (p := c.process).alive and isinstance(p, FrontendProcess)]

    def workers(self) -> list[WorkerProcess]:
        """Those that live."""
        return [p for c in self.children if (p := c.process).alive and isinstance(p, WorkerProcess)]

    def condemn(self, process: Process, status: int) -> None:
        """A process ends once the step that is being taken is over."""
        self._doomed.setdefault(process, status)

    def leave(self, process: Process) -> None:
        """A process ends by itself."""
        self.condemn(process, 0)

    def settle_deaths(self) -> None:
        """End what is to end."""
        while self._doomed:
            process, status = self._doomed.popitem()
            process.die(status)

    def died(self, process: Process, status: int) -> None:
        """A process is dead, and will be reaped."""
        if isinstance(process, WorkerProcess):
            self.worker_deaths += 1
            at_work = list(process.at_work())
            self.deaths.update(number for _, number in at_work)
            self.lane_deaths.update({lane for lane, _ in at_work})
        elif status and isinstance(process, FrontendProcess):
            self.killed_frontends += 1
            self.coverage.door_dies(process)
        child = next(child for child in self.children if child.process is process)

        def reap() -> None:
            with Running(self.loop):
                child.reap(status)
            self.children.remove(child)

        self.at(self.clock.now_ns + self.draw.randrange(self.draw.choice(REAPED_WITHIN_NS)), reap)

    # What the kernel's stand-ins ask --------------------------------------------------------------------------

    def look_ns(self) -> int:
        return self.clock.look_ns()

    def point(self, strand: Strand, name: str) -> None:
        strand.check()
        self.reached[name] += 1
        if self.client.troubles.armed:
            self.client.troubles.at_point(strand, name)
        if self.draw.random() < self.schedule.preemption:
            strand.stop(name)

    def die_here(self, status: int) -> None:
        """Kill the process that runs, where it is."""
        assert self.current is not None
        self.condemn(self.current, status)
        raise KilledError

    def wait(self, strand: Strand, name: str, ready: Callable[[], bool], seconds: float | None) -> None:
        wakes_ns = None if seconds is None else self.clock.now_ns + round(seconds * 1e9)
        strand.wait(name, ready, wakes_ns)

    def begin(self, name: str, target: Callable[[], None]) -> None:
        assert isinstance(self.current, WorkerProcess)
        self.current.begin(name, target)

    def exited(self, status: int) -> None:
        self.violated(f"a process ended itself with {status}", sys.exc_info()[1])

    def completed(self, records: bytes) -> None:
        assert self.current is not None
        for record in _COMPLETION.iter_unpack(records):
            if record[12] == Status.PROBE:
                continue
            if record[12] == Status.UNKNOWN_LANE and not self._moved(record[9]):
                self.violated(f"a ticket of lane {record[9]} went to a worker that does not serve it")
            ticket = (self.current.id, record[0], record[1])
            if ticket in self._completed:
                self.violated(f"{self.current.title}: slot {record[0]} was completed twice")
            self._completed.add(ticket)

    def kills_workers(self, model: int) -> bool:
        """Whether a model is so much to blame that it is moved, and may be given up."""
        lanes = self.models.lanes.items()
        return any(self.lane_deaths[lane] >= BLAME_LIMIT for lane, one in lanes if one.model == f"m{model}")

    def _moved(self, lane: int) -> bool:
        return any(self.moved_out(lane, pool) for pool in self.supervisor._workers.pools)

    def moved_out(self, lane: int, pool: int) -> bool:
        """Whether a lane was so much to blame for deaths in a pool that it was given another one."""
        old = self.supervisor._workers.pools.get(pool)
        record = self.supervisor.catalog.find(lane)
        elsewhere = record is None or record.pool != pool
        return old is not None and old.blame[lane] >= BLAME_LIMIT and elsewhere

    def replacements(self) -> list[Replacement]:
        # With few blocks to a segment some of them come and go at any load.
        small = [(allocator, "SMALLEST_SEGMENT_BYTES", 1024)] if self.schedule.forgetful else []
        # Front ends that never sleep hold tickets for as long as they ever do; those of other worlds hold none.
        awake = self.look_ns if self.schedule.seed % 2 else lambda: 0
        return [
            *small,
            (MODULES.frontend_main, "awake_clock", lambda: awake),
            (MODULES.starter, "Child", self.child),
            (MODULES.supervisor, "MemoryHeadroom", lambda: self.client.troubles),
            (MODULES.watching, "read_activity", lambda _: None),
            # What is new is taken at the second look, which must come while there are requests.
            (MODULES.keeper, "LOOK_AGAIN_SECONDS", LOOK_AGAIN_NS / 1e9),
            (MODULES.keeper, "look", lambda *_: self.models.sight),
            (MODULES.loading, "load_lane", self.models.load_lane),
            *self._mutations,
        ]

    # Reports --------------------------------------------------------------------------------------------------

    def trace(self, line: str) -> None:
        """Remember what happened."""
        self.lines.append(f"{self.clock.now_ns / 1e6:12.4f} ms  {line}")

    def violated(self, what: str, error: BaseException | None = None) -> None:
        """What must never be has happened."""
        if self.violation is None:
            self.violation = ViolationError(f"{what}: {error!r}" if error else what)
            self.violation.__cause__ = error
        raise self.violation
