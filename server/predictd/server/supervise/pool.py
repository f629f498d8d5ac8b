"""A pool as the supervisor holds it: pipes that outlive its workers, and the places that the workers have."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import Counter
from dataclasses import dataclass, field

from predictd.server.config.lane import DEFAULT_PRIORITY_LEVELS
from predictd.server.control.messages import Stop
from predictd.server.launch.plan import ChildPlan, PoolRequest, RunningPool
from predictd.server.observe.processes import cpu_seconds
from predictd.server.supervise.child import Child
from predictd.server.supervise.states import Event, State, transition
from predictd.server.transport.pipes import Pipe, make_pipe

CARRY_RECORDS = 1024


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """A segment of somebody's arena; the supervisor keeps the descriptor for readers yet to come."""

    pool: int
    segment: int
    block_bytes: int
    blocks: int
    fd: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole segment."""
        return self.block_bytes * self.blocks


@dataclass(slots=True, eq=False)
class Place:
    """A worker's or a front end's place: it stays while incarnations come and go.

    Attributes:
        failed_starts: Crashes in a row in which the child did not come to serve.
        barren_crashes: Crashes in a row in which the child completed nothing.
        restarts: Of all time.
        spent_cpu_seconds: CPU time of those who had the place before.
        loading: The lane that the worker loads now.
        claims: The worker's claim table, once it sent it.
        claims_fd: The same, for front ends yet to come.
        pipe: A worker's release pipe, or a front end's completion pipe.
        segments: What the child's arena consists of.
        retired: What it has given back and some reader may still have mapped.
        given_back_bytes: Of all time.
    """

    index: int
    plan: ChildPlan
    state: State = State.STOPPED
    child: Child | None = None
    failed_starts: int = 0
    barren_crashes: int = 0
    restarts: int = 0
    spent_cpu_seconds: float = 0.0
    loading: int | None = None
    claims: mmap.mmap | None = None
    claims_fd: int | None = None
    pipe: Pipe | None = None
    segments: list[SharedSegment] = field(default_factory=list)
    retired: list[SharedSegment] = field(default_factory=list)
    given_back_bytes: int = 0

    def move(self, event: Event) -> None:
        """Take a transition. Raises IllegalTransitionError."""
        self.state = transition(self.state, event)

    def crashed(self, *, worked: bool) -> None:
        """The child died unasked, or could not be started."""
        self.failed_starts = 0 if self.state is State.SERVING else self.failed_starts + 1
        self.barren_crashes = 0 if worked else self.barren_crashes + 1
        self.restarts += 1
        self.move(Event.CRASHED)

    def stop(self) -> None:
        """Ask the child to leave. One that has not begun to serve has nothing to finish and is killed."""
        idle = self.state in (State.STARTING, State.LOADING)
        self.move(Event.STOP)
        if self.child is not None and idle:
            self.child.kill()
        elif self.child is not None:
            self.child.send(Stop())

    def clear(self) -> None:
        """The child is gone: close everything that was its own."""
        if self.child is not None:
            self.spent_cpu_seconds += self.child.spent_cpu_seconds
            self.child = None
        self.loading = None
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None
        if self.claims_fd is not None:
            os.close(self.claims_fd)
            self.claims_fd = None
        if self.claims is not None:
            self.claims.close()
            self.claims = None
        for pool in {segment.pool for segment in (*self.segments, *self.retired)}:
            self.drop_segments(pool)

    def drop_segments(self, pool: int) -> None:
        """Forget a front end's memory for a pool that is gone. The kernel keeps it until the last one unmaps it."""
        for segment in self.segments:
            if segment.pool == pool:
                os.close(segment.fd)
        self.segments = [segment for segment in self.segments if segment.pool != pool]
        self.retired = [segment for segment in self.retired if segment.pool != pool]

    def retire(self, pool: int, number: int) -> bool:
        """The child gave a segment back: its bytes count until its readers have unmapped it.

        Returns:
            False when it is not known, because its pool went meanwhile.
        """
        for segment in self.segments:
            if (segment.pool, segment.segment) == (pool, number):
                os.close(segment.fd)
                self.segments.remove(segment)
                self.retired.append(segment)
                return True
        return False

    def unmapped(self, pool: int, number: int) -> None:
        """Nobody has a retired segment mapped any more."""
        for segment in self.retired:
            if (segment.pool, segment.segment) == (pool, number):
                self.retired.remove(segment)
                self.given_back_bytes += segment.size_bytes
                return

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all who had the place."""
        return self.spent_cpu_seconds + (0.0 if self.child is None else cpu_seconds(self.child.pid))

    @property
    def arena_bytes(self) -> int:
        """Shared memory that the child has made and somebody may have mapped."""
        return sum(segment.size_bytes for segment in (*self.segments, *self.retired))


class Pool:
    """Workers that host the same lanes, and what they share.

    Attributes:
        queue_limit: Tickets that may wait in each queue.
        request: What the launcher was asked for.
        blame: How often each lane was at work when a worker died.
        in_turn: Its workers wait, for their first load, until no other one loads on their CPUs.

    Raises:
        OSError: The system has too few descriptors left, or too little pipe memory.
    """

    def __init__(
        self,
        pool_id: int,
        name: str,
        plans: tuple[ChildPlan, ...],
        queue_records: int,
        queues: int = DEFAULT_PRIORITY_LEVELS,
        *,
        request: PoolRequest | None = None,
    ) -> None:
        self.id = pool_id
        self.name = name
        self.places = [Place(index, plan) for index, plan in enumerate(plans)]
        self.request = request or PoolRequest(name, len(plans))
        self.blame: Counter[int] = Counter()
        self.in_turn = False
        self.queue_limit = queue_records
        with contextlib.ExitStack() as made:
            # What was made before the system had no more must not be lost.
            self.queues = [_made(made, queue_records) for _ in range(queues)]
            self.carry = _made(made, CARRY_RECORDS)
            self.baton = _made(made)
            self.lock_fd = os.memfd_create("predictd-leader", os.MFD_CLOEXEC)
            made.pop_all()
        self.closed = False

    def worker_fds(self) -> list[int]:
        """What a worker gets, in the order that WorkerInit names."""
        carry, baton = self.carry, self.baton
        return [
            *(queue.read_fd for queue in self.queues),
            carry.read_fd,
            carry.write_fd,
            baton.read_fd,
            baton.write_fd,
            self.lock_fd,
        ]

    @property
    def gone(self) -> bool:
        """No worker serves and none will."""
        return all(place.state in (State.FAILED, State.STOPPED) for place in self.places)

    @property
    def leaving(self) -> bool:
        """No worker will serve any more, though some may be on their way out."""
        return all(place.state in (State.FAILED, State.STOPPED, State.STOPPING) for place in self.places)

    @property
    def initialised(self) -> list[tuple[Place, Child]]:
        """The workers that were told who they are and shall stay."""
        states = (State.LOADING, State.MAPPING, State.SERVING)
        return [(place, place.child) for place in self.places if place.child and place.state in states]

    @property
    def on_its_way(self) -> bool:
        """Some worker has yet to serve for the first time."""
        states = (State.STARTING, State.LOADING, State.MAPPING)
        return any(place.state in states and not place.restarts for place in self.places)

    @property
    def serving(self) -> set[int]:
        """The workers that serve, by child id."""
        return {place.child.id for place in self.places if place.child and place.state is State.SERVING}

    def stop(self) -> None:
        """Stop all its workers."""
        for place in self.places:
            place.stop()

    def as_running(self) -> RunningPool:
        """What the launcher must know of it to plan another."""
        return RunningPool(self.request, frozenset(cpu for place in self.places for cpu in place.plan.cpus))

    def wake_followers(self) -> None:
        """The leader may be dead: let the others try for the token."""
        if self.closed:
            return
        try:
            os.write(self.baton.write_fd, b"\0")
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give everything back."""
        if self.closed:
            return
        self.closed = True
        for pipe in (*self.queues, self.carry, self.baton):
            pipe.close()
        os.close(self.lock_fd)


def _made(made: contextlib.ExitStack, *records: int) -> Pipe:
    pipe = make_pipe(*records)
    made.callback(pipe.close)
    return pipe
