"""What goes wrong in a simulated world, and that it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.server.launch.memory import Headroom
from tests.simulation.process import SIGKILL, Process
from tests.simulation.schedule import MS, Fault, Trouble
from tests.simulation.strand import Strand
from tests.simulation.worker_process import WorkerProcess

if TYPE_CHECKING:
    from tests.simulation.clients import Pending
    from tests.simulation.world import World

# Where a worker can die or hang, and what asked for its work can go; the names are those of the stand-ins in `kernel`.
POINTS = (
    "after lock",
    "before read",
    "after read",
    "before claim",
    "after claim",
    "before write",
    "after write",
    "before unlock",
    "after unlock",
    "after start",
    "in run",
    "before clear",
    "after clear",
    "before load",
    "after load",
)
# How often a point is passed before.
PASSED = (0, 0, 1, 1, 2, 5)
MEMORY_IS_SHORT_NS = 15 * MS
_PLENTY_BYTES = 1 << 40
STOPPED_NS = (MS, 100 * MS, 300 * MS)


@dataclass(frozen=True, slots=True)
class Armed:
    """A trouble that waits for a worker to come to a point.

    Attributes:
        left: How often the point is passed before.
    """

    trouble: Trouble
    point: str
    draw: int
    left: int


class Troubles:
    """Strikes.

    Attributes:
        armed: What strikes where a worker comes by.
        swaps: How often the models were exchanged.
        memory: Memory was short once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.armed: list[Armed] = []
        self.swaps = 0
        self.memory = False
        self._short_until_ns = 0

    def read(self) -> Headroom:
        """Stands for `MemoryHeadroom.read`."""
        left = 0 if self.world.clock.now_ns < self._short_until_ns else _PLENTY_BYTES
        return Headroom(left, _PLENTY_BYTES, "")

    def strike(self, fault: Fault) -> None:
        """Make something go wrong."""
        world = self.world
        world.trace(f"trouble: {fault.trouble.name}")
        world.coverage.strikes(fault.trouble.name)
        match fault.trouble:
            case (
                Trouble.KILL_WORKER_AT | Trouble.KILL_FRONTEND_AT | Trouble.CANCEL_AT | Trouble.HANG_WORKER_AT
            ):
                point = POINTS[fault.draw % len(POINTS)]
                self.armed.append(
                    Armed(fault.trouble, point, fault.draw, PASSED[fault.draw // 97 % len(PASSED)])
                )
            case Trouble.KILL_WORKER:
                self._kill(world.workers(), fault.draw)
            case Trouble.KILL_FRONTEND:
                self._kill(world.frontends(), fault.draw)
            case Trouble.STOP:
                self._stop(fault.draw)
            case Trouble.SWAP | Trouble.BROKEN_SWAP:
                self.swaps += 1
                broken = "broken" if fault.trouble is Trouble.BROKEN_SWAP else "content"
                versions = ((1,), (1, 2), (2,))[fault.draw % 3]
                world.models.swap(world.models.see(f"{broken}{self.swaps}", versions))
            case Trouble.NO_MEMORY:
                self.memory = True
                self._short_until_ns = world.clock.now_ns + MEMORY_IS_SHORT_NS

    @staticmethod
    def _kill(processes: Sequence[Process], draw: int) -> None:
        if processes:
            processes[draw % len(processes)].die(SIGKILL)

    def _stop(self, draw: int) -> None:
        """Stop a process, for longer and longer than the supervisor lets it be."""
        processes: list[Process] = [*self.world.workers(), *self.world.frontends()]
        if not processes:
            return
        process = processes[draw % len(processes)]
        process.stopped = True
        self.world.trace(f"{process.title} is stopped")
        if (times := draw // 97 % (len(STOPPED_NS) + 1)) < len(STOPPED_NS):

            def go_on() -> None:
                process.stopped = False

            self.world.at(self.world.clock.now_ns + STOPPED_NS[times], go_on)

    # What waits for a worker --------------------------------------------------------------------------------------

    def at_point(self, strand: Strand, name: str) -> None:
        """A worker has come to a point of its work."""
        worker = self.world.current
        assert isinstance(worker, WorkerProcess)
        assert worker.worker is not None
        # How long a load may take is another matter than whether a run loop goes on.
        serves = worker.worker._serve and "load" not in name
        due = [
            at
            for at, armed in enumerate(self.armed)
            if armed.point == name and (serves or armed.trouble is not Trouble.HANG_WORKER_AT)
        ]
        if not due:
            return
        at = due[0]
        armed = self.armed[at]
        if armed.left:
            self.armed[at] = Armed(armed.trouble, name, armed.draw, armed.left - 1)
            return
        del self.armed[at]
        self._strike_at(armed, strand)

    def _strike_at(self, armed: Armed, strand: Strand) -> None:
        world = self.world
        pending = self._someone(armed.draw)
        world.coverage.strikes(f"{armed.trouble.name} {armed.point}")
        match armed.trouble:
            case Trouble.KILL_WORKER_AT:
                world.die_here(SIGKILL)
            case Trouble.HANG_WORKER_AT:
                world.trace(f"{strand.name} hangs")
                world.wait(strand, "hang", lambda: False, None)
            case Trouble.KILL_FRONTEND_AT if pending is not None:
                world.condemn(pending.door, SIGKILL)
                strand.stop(armed.point)
            case Trouble.CANCEL_AT if pending is not None:
                world.client.leave(pending)
                strand.stop(armed.point)

    def _someone(self, draw: int) -> Pending | None:
        """A request that the worker has claimed, else any that is under way."""
        worker = self.world.current
        assert isinstance(worker, WorkerProcess)
        waiting = [one for one in self.world.client.pending.values() if not one.over]
        held = {(one.door.id, one.asked.number): one for one in waiting}
        claimed = [one for key in worker.claimed() if (one := held.get(key)) is not None]
        choice = claimed or waiting
        return choice[draw % len(choice)] if choice else None
