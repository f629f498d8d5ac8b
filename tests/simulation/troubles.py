"""What goes wrong in a simulated world, and that it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.process import SIGKILL
from tests.simulation.schedule import MS, Fault, Trouble

if TYPE_CHECKING:
    from tests.simulation.world import World

# Where a worker can die; the names are those of the stand-ins in `kernel`.
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
MEMORY_IS_SHORT_NS = 15 * MS


class Troubles:
    """Strikes.

    Attributes:
        swaps: How often the models were exchanged.
        memory: Memory was short once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.swaps = 0
        self.memory = False

    def strike(self, fault: Fault) -> None:
        """Make something go wrong."""
        world = self.world
        world.trace(f"trouble: {fault.trouble.name}")
        match fault.trouble:
            case Trouble.KILL_WORKER_AT:
                world.armed.append((POINTS[fault.draw % len(POINTS)], fault.draw // 97 % 6))
            case Trouble.KILL_WORKER:
                workers = world.workers()
                if workers:
                    workers[fault.draw % len(workers)].die(SIGKILL)
            case Trouble.KILL_FRONTEND:
                doors = world.frontends()
                if doors:
                    doors[fault.draw % len(doors)].die(SIGKILL)
            case Trouble.SWAP | Trouble.BROKEN_SWAP:
                self.swaps += 1
                broken = "broken" if fault.trouble is Trouble.BROKEN_SWAP else "content"
                versions = ((1,), (1, 2), (2,))[fault.draw % 3]
                world.models.swap(world.models.see(f"{broken}{self.swaps}", versions))
            case Trouble.NO_MEMORY:
                self.memory = True
                world.memory_until_ns = world.clock.now_ns + MEMORY_IS_SHORT_NS
