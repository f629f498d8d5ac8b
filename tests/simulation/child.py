"""What the supervisor holds of a simulated process, in place of `Child`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from predictd.server.control.message import Message
from predictd.server.control.messages import Pong
from predictd.server.supervise import frontends
from predictd.server.supervise.child import OnExit, OnMessage
from tests.simulation.frontend_process import FrontendProcess
from tests.simulation.process import SIGKILL, Process
from tests.simulation.worker_process import WorkerProcess

if TYPE_CHECKING:
    from tests.simulation.world import World


class SimulatedChild:
    """Stands for `Child`: what the supervisor holds of a process."""

    def __init__(
        self,
        world: World,
        child_id: int,
        title: str,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        cpus: Sequence[int],
        numa_nodes: Sequence[int],
        user: object,
        on_message: OnMessage,
        on_exit: OnExit,
    ) -> None:
        del arguments, environment, cpus, numa_nodes, user
        self.id = child_id
        self.title = title
        self.pid = child_id
        self.over = False
        self.spent_cpu_seconds = 0.0
        self._world = world
        self._on_message = on_message
        self._on_exit = on_exit
        kind = FrontendProcess if module == frontends.MODULE else WorkerProcess
        self.process: Process = kind(world, child_id, f"{title} #{child_id}")
        world.joined(self)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self.process.alive:
            self.process.inbox.append((message, [self._world.duplicate(fd) for fd in fds]))

    @property
    def stopped(self) -> bool:
        """A signal has stopped the process."""
        return self.process.stopped

    def kill(self) -> None:
        self._world.condemn(self.process, SIGKILL)

    def hear(self) -> bool:
        """Give the supervisor the next message of the process."""
        if self.over or not self.process.outbox:
            return False
        message, fds = self.process.outbox.popleft()
        if not isinstance(message, Pong):
            self._world.trace(f"supervisor gets {type(message).__name__} of {self.title} #{self.id}")
        self._world.supervisor_descriptors.update(fds)
        self._on_message(self, message, fds)  # type: ignore[arg-type]
        return True

    def reap(self, status: int) -> None:
        """The end of the process is known. What it said before is heard first."""
        while self.hear():
            pass
        self.over = True
        self._on_exit(self, status)  # type: ignore[arg-type]
