"""Putting a new child into a place: what starting a worker and starting a front end have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from predictd.server.launch.environment import child_environment
from predictd.server.supervise.child import Child, OnExit, OnMessage
from predictd.server.supervise.pool import Place
from predictd.server.supervise.states import Event
from predictd.server.transport.pipes import Pipe


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts children of one kind.

    Attributes:
        module: What they run.
        environment: The supervisor's, which each child's plan adds to.
        next_id: Ids, never used again.
        on_message: Hears what they say.
        on_exit: Hears of their end.
    """

    module: str
    environment: Mapping[str, str]
    next_id: Callable[[], int]
    on_message: OnMessage
    on_exit: OnExit

    def start(self, place: Place, title: str, make_pipe: Callable[[], Pipe], *arguments: str) -> Child:
        """Start a child with a pipe of its own, and with arguments of its own beside those of every child.

        Raises:
            OSError: It cannot be started. The place counts that as a crash.
        """
        place.move(Event.SPAWN)
        try:
            place.pipe = make_pipe()
            place.child = Child(
                self.next_id(),
                title,
                self.module,
                arguments,
                environment=child_environment(self.environment, place.plan.environment),
                cpus=place.plan.cpus,
                numa_nodes=place.plan.numa_nodes,
                user=place.plan.user,
                on_message=self.on_message,
                on_exit=self.on_exit,
            )
        except OSError:
            place.clear()
            place.crashed(worked=False)
            raise
        return place.child
