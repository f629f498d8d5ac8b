"""The hot path in C, as the rest of the front end sees it: told of pools, workers and routes, asked for what it has.

The loop in C answers what needs no judgement: requests of a shape that Python has checked once, to a lane without rules
of its own. All others come to the Python adapters, whole, as they come with grpcio.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from array import array
from collections.abc import Container, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from predictd.server.errors import OverloadedError
from predictd.server.frontend.calls import waiting_series
from predictd.server.frontend.mirror import Mirror
from predictd.server.frontend.native import counts
from predictd.server.frontend.native.admissions import Admissions, encode_lane, is_plain
from predictd.server.frontend.native.clients import SharedClientLimit
from predictd.server.frontend.native.ended import EndedRequests
from predictd.server.frontend.native.expected import SharedExpectation
from predictd.server.frontend.native.grants import Grants
from predictd.server.frontend.native.memory import NativeArena, ResponseMemory, later
from predictd.server.frontend.native.packing import Command, Line, address, longs, numbers, text
from predictd.server.frontend.native.recovery import Reason, Recovery
from predictd.server.frontend.request_log import LoggedService
from predictd.server.observe.buckets import DURATION_BOUNDS_NS
from predictd.server.transport.claims import ClaimState
from predictd.server.transport.pipes import Pipe, make_pipe

if TYPE_CHECKING:
    from predictd.server.frontend.access import Access
    from predictd.server.frontend.clients import ClientLimit
    from predictd.server.frontend.dispatch import Dispatcher
    from predictd.server.frontend.lost import Probe
    from predictd.server.frontend.native.limits import Limits
    from predictd.server.frontend.pools import ArenaGrowth, PoolLink, WorkerLink
    from predictd.server.frontend.routing import Lane, Routes
    from predictd.server.frontend.service import Service
    from predictd.server.observe.deltas import WaitingSeries
    from predictd.server.observe.recorder import FrontendRecorder

_OUTSTANDING = struct.Struct("<6IQQ")
_LANE = struct.Struct("<I")
_GROW = struct.Struct("<IIQ")

_NOT_YET = b"\0"

# `enum hot_event`.
_HANDED, _CLIENT_GONE, _LANE_IDLE, _GROW_ASKED, _POOL_IDLE, _LINE = range(1, 7)


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pool that the loop knows; `keep` is memory that both look at."""

    arena: NativeArena
    keep: tuple[Any, ...]


class Hot(Mirror):
    """The other half of a native front end. Runs on the event loop.

    Args:
        command: To the loop in C.
        init: What the supervisor said.
        completion_fd: Of the front end's completion pipe, which the loop reads.

    Attributes:
        python_slots: Requests that Python may have in flight.
        records: The pipe by which the loop passes on completions that are Python's.
    """

    def __init__(self, command: Command, init: Limits, completion_fd: int) -> None:
        self._command = command = Line(command)
        self._init = init
        # Either half may have as many as there may be of both together.
        self.python_slots = init.in_flight_limit
        self.records: Pipe = make_pipe(2 * self.python_slots)
        self._pools: dict[int, _Pool] = {}
        self._claims: dict[int, Any] = {}
        self._lanes: dict[int, Lane] = {}
        self._keep: dict[int, Any] = {}
        self._enabled = False
        # Until when the loop has too much to do, as it writes it.
        self._pressed_until_ns = array("Q", [0])
        pressed, self._keep_pressed = address(self._pressed_until_ns)
        self._shared: set[int] = set()
        self._before_probes_ns: dict[int, int] = {}
        self._idle: dict[int, Any] = {}
        self._responses = ResponseMemory(command)
        self._grants: Grants | None = None
        self._lines: EndedRequests | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        command(
            "setup",
            numbers(
                init.frontend,
                self.python_slots,
                init.in_flight_limit,
                completion_fd,
                self.records.write_fd,
            )
            + longs(init.max_message_bytes, pressed)
            + numbers(len(DURATION_BOUNDS_NS))
            + longs(*DURATION_BOUNDS_NS),
        )

    def connect(
        self,
        dispatcher: Dispatcher,
        routes: Routes,
        service: Service,
        recorder: FrontendRecorder,
        growth: ArenaGrowth,
    ) -> None:
        """Know the first half, once that is made."""
        service.also_pressed(lambda: time.monotonic_ns() < self._pressed_until_ns[0])
        self._dispatcher = dispatcher
        self._routes = routes
        self._recorder = recorder
        self._growth = growth
        self._service = service
        self.recovery = Recovery(
            self._command,
            service,
            self._lanes,
            dispatcher.links.workers,
            self._init.frontend,
            self._init.max_message_bytes,
        )

    def know_callers(self, access: Access) -> None:
        """Have calls looked at by what Python decided of their callers, and the log of requests written."""
        if access.by_model:
            access.memory = self._grants = Grants(self._command, self._lanes)
        if isinstance(self._service, LoggedService):
            self._lines = EndedRequests(self._command, self._service, access)
            self.recovery.note = self._lines.note

    def client_limit(self, limit: int) -> ClientLimit:
        """Counts requests of each client, of both halves."""
        return SharedClientLimit(self._command, limit)

    def enable(self, *, enabled: bool) -> None:
        """Whether requests may be taken; else all are Python's."""
        self._enabled = enabled
        self._say_enabled()

    def _say_enabled(self) -> None:
        """Whether requests may be taken, and whether all lanes are known that a request may be for."""
        served = sum(self._routes.lanes_of_pools().values())
        self._command("enable", bytes([self._enabled, len(self._lanes) == served]))

    def end(self) -> None:
        """The loop has nothing left to do and is about to end."""
        self.collect()
        self._command.closed = True

    def on_event(self, kind: int, data: bytes) -> None:
        """What the loop has to say."""
        if kind == _HANDED:
            self.recovery.on_handed(data)
        elif kind == _CLIENT_GONE:
            self.recovery.on_client_gone(data)
        elif kind == _LANE_IDLE:
            self._lane_idle(*_LANE.unpack(data))
        elif kind == _GROW_ASKED:
            pool, _, size_bytes = _GROW.unpack(data)
            self._spawn(self._grow(pool, size_bytes))
        elif kind == _POOL_IDLE:
            (pool,) = _LANE.unpack(data)
            del self._pools[pool]
            self._shared.discard(pool)
        elif kind == _LINE and self._lines is not None:
            self._lines.on_line(data)
        else:
            raise TypeError(f"the loop told of event {kind}. This is a bug.")

    def _spawn(self, growing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(growing)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        task.result()

    # Pools and workers ----------------------------------------------------------------------------------------

    @property
    @override
    def in_flight(self) -> int:
        return sum(sum(pool.mirrored_out) for pool in self._dispatcher.links.pools.values())

    @property
    @override
    def arena_bytes(self) -> int:
        return sum(pool.arena.total_bytes for pool in self._pools.values())

    @override
    def drain(self) -> None:
        while self._command("drain", b"") == _NOT_YET:
            # Its way to us is full: what is there is read, and it goes on.
            self._dispatcher.on_completions()

    @override
    def pool_attached(self, pool: PoolLink, queue_fds: Sequence[int]) -> None:
        ours, keep_ours = address(pool.mirrored_out)
        python, keep_python = address(pool.out)
        init = self._init
        arena = NativeArena(
            self._command,
            pool.id,
            f"predictd-requests-{pool.id}",
            init.arena_limit_bytes,
            init.arena_keep_ns,
            pool.arena,
        )
        self._pools[pool.id] = _Pool(arena, (keep_ours, keep_python))
        self._command(
            "pool_add",
            numbers(pool.id, pool.queues.levels, pool.queues.frontends, pool.queues.limit)
            + longs(ours, python)
            + numbers(*map(os.dup, queue_fds)),
        )

    @override
    def pool_gone(self, pool: int) -> None:
        self._command("pool_gone", numbers(pool))

    @override
    def worker_attached(self, worker: WorkerLink) -> None:
        where, self._claims[worker.id] = address(worker.claims)
        self._command("worker_add", numbers(worker.id, worker.pool, os.dup(worker.release_fd)) + longs(where))

    @override
    def worker_died(self, pool: int, state: ClaimState, held: Iterable[tuple[int, int]]) -> None:
        # What the loop had put into its queues by now stands before the probes, once it is written.
        self._before_probes_ns[pool] = time.monotonic_ns()
        self.drain()
        reason = Reason.ALONE if state is ClaimState.RUNNING else Reason.PUT_BACK
        self._hand_over(reason, pool, held)

    @override
    def worker_gone(self, worker: int) -> None:
        self._command("worker_gone", numbers(worker))
        self._responses.forget(worker)
        self._claims.pop(worker, None)

    @override
    def find_lost(self, probe: Probe, held: Container[tuple[int, int]]) -> None:
        lost = [
            (slot, generation)
            for slot, generation, _, pool, level, _, _, queued_ns in self.outstanding()
            if pool == probe.pool
            and level == probe.level
            and queued_ns < self._before_probes_ns[probe.pool]
            and (slot, generation) not in held
        ]
        self._hand_over(Reason.PUT_BACK, probe.pool, lost)

    def _hand_over(self, reason: Reason, pool: int, tickets: Iterable[tuple[int, int]]) -> None:
        """Have the loop hand over what of these is its own, and this pool's."""
        packed = b"".join(numbers(*ticket) for ticket in tickets)
        if packed:
            self._command("hand_over", numbers(reason, pool) + packed)

    def outstanding(self) -> Iterable[tuple[int, ...]]:
        """A row of `struct row` for each ticket that the loop has out."""
        return _OUTSTANDING.iter_unpack(self._command("outstanding", b""))

    @override
    def waiting(self, held: Container[tuple[int, int]], now_ns: int) -> tuple[WaitingSeries, ...]:
        since_ns: dict[tuple[int, int], list[int]] = {}
        for slot, generation, lane, _, level, waits, accepted_ns, _ in self.outstanding():
            if waits and (slot, generation) not in held:
                since_ns.setdefault((lane, level), []).append(accepted_ns)
        return waiting_series(since_ns, now_ns)

    @override
    def segment_added(
        self, worker: int, segment: int, view: memoryview, block_bytes: int, blocks: int
    ) -> None:
        self._responses.add(worker, segment, view, block_bytes, blocks)

    @override
    def segment_removed(self, worker: int, segment: int) -> None:
        self._responses.remove(worker, segment)

    async def _grow(self, pool_id: int, size_bytes: int) -> None:
        """Grow the loop's part of a pool's arena."""
        pool = self._pools.get(pool_id)
        if pool is None:
            return
        done = partial(self._command, "grown", numbers(pool_id))
        if pool.arena.plan_growth(size_bytes) is None:
            later(done)
            return
        try:
            await self._growth.grow(pool_id, pool.arena, size_bytes)
        except OverloadedError:
            # The request that it was for has come to Python meanwhile, which says so to its client.
            self.give_back(time.monotonic_ns(), pressed=True)
            later(done)
        else:
            done()

    @override
    def give_back(self, now_ns: int, *, pressed: bool = False) -> None:
        for number, pool in self._pools.items():
            for segment in pool.arena.give_back(now_ns, pressed=pressed):
                self._growth.retired(number, segment)

    # Lanes ----------------------------------------------------------------------------------------------------

    @override
    def published(self, model: str) -> None:
        links = self._dispatcher.links
        for number in self._pools.keys() & links.pools.keys():
            shared = links.pools[number].lanes > 1
            if shared is not (number in self._shared):
                self._shared ^= {number}
                self._command("pool_shared", numbers(number, shared))
        routes = []
        for version, lane in self._routes.plain(model).items():
            pool = links.pools.get(lane.pool)
            if pool is not None and is_plain(lane, pool) and self._knows(lane, pool):
                routes.append(longs(version) + numbers(lane.id))
        self._say_enabled()
        self._command("model", text(model) + numbers(len(routes)) + b"".join(routes))

    def _knows(self, lane: Lane, pool: PoolLink) -> bool:
        """Have the loop know a lane. One that it knows in another pool it does not learn anew."""
        known = self._lanes.get(lane.id)
        if known is None:
            expectation = SharedExpectation()
            where, self._keep[lane.id] = address(expectation.memory)
            lane.queues.of(0).expectation = expectation
            self._command("lane_add", encode_lane(lane, pool, where))
            self._lanes[lane.id] = known = lane
            lane.inputs.learned = Admissions(self._command, lane).learned
            if self._grants is not None:
                self._grants.clear()
        return known is lane

    @override
    def retire(self, lane: int) -> None:
        if lane not in self._lanes:
            return
        (outstanding,) = _LANE.unpack(self._command("lane_drop", numbers(lane)))
        if outstanding:
            self._dispatcher.retirements.begin(lane)
            self._idle[lane] = self._dispatcher.retirements.end
        else:
            self._forget(lane)

    def _lane_idle(self, lane: int) -> None:
        end = self._idle.pop(lane, None)
        if end is not None:
            self._forget(lane)
            end(lane)

    def _forget(self, lane: int) -> None:
        self.collect()
        self._command("lane_forget", numbers(lane))
        del self._lanes[lane], self._keep[lane]

    @override
    def collect(self) -> None:
        self._recorder.went(counts.parse_ways(self._command("ways", b"")))
        for counted in counts.parse(self._command("counts", b"")):
            self._recorder.waits(counted.lane, counted.expected_ns)
            for series in counted.series:
                self._recorder.counted_elsewhere(series)
                if series.status == counts.SHED:
                    self._recorder.shed(counted.lane, "expected_wait", series.requests)
