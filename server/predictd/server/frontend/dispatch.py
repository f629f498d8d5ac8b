"""From a checked request to its answer: arena, ticket, completion, and what to do when a worker dies in between."""

from __future__ import annotations

import asyncio
import time

from predictd.server.errors import OverloadedError
from predictd.server.frontend.calls import (
    Answered,
    Call,
    CallTable,
    Receiver,
    Recovery,
    held_slots,
    recovery,
    too_many,
    waiting,
)
from predictd.server.frontend.completion_pipe import read_completions
from predictd.server.frontend.failures import LaneGoneError, check_wait, full, poison, too_late
from predictd.server.frontend.holding import Holding
from predictd.server.frontend.links import Links
from predictd.server.frontend.lost import Probe, Probes
from predictd.server.frontend.mirror import NO_MIRROR, Mirror
from predictd.server.frontend.order import Order, placed
from predictd.server.frontend.outcomes import outcome
from predictd.server.frontend.pools import ArenaGrowth, PoolLink, release_blocks
from predictd.server.frontend.retirement import Retirements
from predictd.server.frontend.room import check_room
from predictd.server.frontend.routing import Lane
from predictd.server.frontend.waiting import LaneQueue
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.observe.recorder import FrontendRecorder
from predictd.server.transport.allocator import Block
from predictd.server.transport.blocks import CANCELLED_OFFSET
from predictd.server.transport.claims import read_claims
from predictd.server.transport.records import (
    NO_SEGMENT,
    Status,
    TicketFlag,
)

# As plain integers: the arithmetic of flags makes objects of them.
_PATIENCE = int(TicketFlag.PATIENCE)
_DELAY = int(TicketFlag.DELAY)
_ALONE = int(TicketFlag.ALONE)
# With so few calls in flight a ticket does not wait for others that may come in the same turn.
FEW_CALLS = 2


class Dispatcher:
    """Owns everything in flight of this front end. Runs on the event loop alone.

    Attributes:
        mirror: The other half of this front end, if it has one.
        links: Pools and workers, as the supervisor tells of them.
        retirements: Tells when a lane has nothing outstanding.
    """

    def __init__(
        self,
        frontend: int,
        frontends: int,
        completion_fd: int,
        in_flight_limit: int,
        growth: ArenaGrowth,
        recorder: FrontendRecorder,
        holding: Holding,
        mirror: Mirror = NO_MIRROR,
    ) -> None:
        self._frontend = frontend
        self.mirror = mirror
        self._in_flight_limit = in_flight_limit
        self._completion_fd = completion_fd
        self._calls = CallTable(in_flight_limit)
        self._growth = growth
        self._recorder = recorder
        # Asking for the running loop is a system call.
        self._loop = asyncio.get_running_loop()
        self.links = Links(frontend, frontends, growth, holding, self._refuse)
        self._pools = self.links.pools
        self._workers = self.links.workers
        self._probes = Probes(frontend)
        self.retirements = Retirements()

    @property
    def in_flight(self) -> int:
        """Calls whose tickets are out."""
        return len(self._calls) + self.mirror.in_flight

    def waiting(self, now_ns: int) -> tuple[WaitingSeries, ...]:
        """What waits that no worker has taken."""
        held: set[tuple[int, int]] = (
            set().union(*map(self.links.held, self._pools)) if self.in_flight else set()
        )
        return waiting(self._calls, held, now_ns) + self.mirror.waiting(held, now_ns)

    # Requests -------------------------------------------------------------------------------------------------

    async def call(self, order: Order) -> Answered:
        """Send a request to its lane's pool and wait for its answer.

        Raises:
            RequestError: Whatever came instead of an answer.
        """
        lane, size_bytes = order.lane, order.admission.layout.size_bytes
        pool = self._pools[lane.pool]
        # What was accepted before is not refused for its wait.
        deadline_ns = 0 if order.moved else order.deadline_ns
        ahead = self.check(lane, order.queue, size_bytes, deadline_ns, moved=order.moved)
        self.retirements.begin(lane.id)
        try:
            block = pool.arena.allocate(size_bytes) or await self._grown(lane, pool, size_bytes)
            place = self._take_slot(pool, block)
        except BaseException:
            self.retirements.end(lane.id)
            raise
        future: asyncio.Future[Answered] = self._loop.create_future()
        call = self._send(order, future, pool, block, place, ahead)
        try:
            return await future
        except asyncio.CancelledError:
            self.abandon(call)
            raise
        finally:
            # A failure knows this frame, which must not know the failure: such a ring would keep the request's
            # tensors until the next full collection. To the table it says that nobody waits any more.
            call.future = None
            del future

    def begin(self, order: Order, receiver: Receiver) -> Call | None:
        """Send a request as `call` does, and have its answer given to a receiver.

        Returns:
            None if nothing was sent, because memory for it would have to be waited for.

        Raises:
            OverloadedError: It is refused.
        """
        lane, size_bytes = order.lane, order.admission.layout.size_bytes
        pool = self._pools[lane.pool]
        ahead = self.check(lane, order.queue, size_bytes, order.deadline_ns)
        block = pool.arena.allocate(size_bytes)
        if block is None:
            return None
        place = self._take_slot(pool, block)
        self.retirements.begin(lane.id)
        return self._send(order, receiver, pool, block, place, ahead)

    def abandon(self, call: Call) -> None:
        """The client of a call is gone."""
        call.ends_waiting()
        call.future = None
        if self._calls.find(call.slot, call.generation) is call:
            self._pools[call.lane.pool].arena.view(call.block)[CANCELLED_OFFSET] = 1

    def _send(
        self,
        order: Order,
        receiver: Receiver,
        pool: PoolLink,
        block: Block,
        place: tuple[int, int],
        ahead: int,
    ) -> Call:
        """Write a request into its block and send its ticket. What goes wrong from here on is told to the receiver."""
        admission, queue = order.admission, order.queue
        call = placed(order, receiver, pool.queues.levels, block, place, ahead)
        queue.out += 1
        queue.out_bytes += call.size_bytes
        if call.flags & _PATIENCE and not call.flags & _DELAY:
            left_seconds = max(call.deadline_ns - time.monotonic_ns(), 0) / 1e9
            call.timer = self._loop.call_later(left_seconds, self._waited_enough, call)
        admission.write(pool.arena.segment_view(block.segment), block.offset, call.generation, order.tensors)
        self._enqueue(pool, call, moved=order.moved)
        return call

    def check(
        self, lane: Lane, queue: LaneQueue, size_bytes: int, deadline_ns: int, *, moved: bool = False
    ) -> int:
        """How many requests are before one that would come now.

        Raises:
            OverloadedError: It would be refused for its wait or, unless it `moved`, for want of room in its queue.
        """
        pool = self._pools.get(lane.pool)
        if pool is None:
            return 0
        ahead = pool.ahead(queue.level, self._workers.values())
        self._recorder.waits(lane.id, check_wait(lane, queue.expectation, ahead, deadline_ns))
        if not moved:
            check_room(lane, pool, queue, ahead, size_bytes, lambda: self._taken(lane.pool))
        return ahead

    async def _grown(self, lane: Lane, pool: PoolLink, size_bytes: int) -> Block:
        """A block for a request, once there is memory for it. Raises RequestError."""
        try:
            block = await self._growth.allocate(pool.id, pool.arena, size_bytes)
        except OverloadedError:
            # Too late for this one: the memory is free once all readers have unmapped it.
            self.links.give_back(pressed=True)
            self.mirror.give_back(time.monotonic_ns(), pressed=True)
            raise
        if pool.id not in self._pools:
            raise LaneGoneError(f"model '{lane.model}' stopped to be served")
        return block

    def _take_slot(self, pool: PoolLink, block: Block) -> tuple[int, int]:
        """A slot and its generation for a request that has a block. Raises OverloadedError."""
        try:
            if self.mirror.in_flight and self.in_flight >= self._in_flight_limit:
                raise too_many(self._in_flight_limit)
            return self._calls.take_slot()
        except OverloadedError:
            pool.arena.free(block)
            raise

    def _enqueue(self, pool: PoolLink, call: Call, *, moved: bool) -> None:
        call.queued_ns = time.monotonic_ns()
        self._calls.put(call)
        pool.out[call.priority] += 1
        few = len(self._calls) <= FEW_CALLS
        refusable = None if moved else call
        pool.queues.put(call.ticket(self._frontend), call.priority, refusable, at_once=few)

    def _refuse(self, call: Call) -> None:
        """The queue has no room for the ticket."""
        self._finish(call)
        if call.future is not None and not call.future.done():
            call.future.set_exception(full(call.lane))

    def _taken(self, pool_id: int) -> list[Call]:
        """Our requests that the living workers of a pool have claimed."""
        calls = (self._calls.find(slot, generation) for slot, generation in self.links.held(pool_id))
        return [call for call in calls if call is not None]

    def _waited_enough(self, call: Call) -> None:
        """Refuse a request that waits in its queue still; its ticket comes back as expired."""
        call.timer = None
        held = self.links.held(call.lane.pool)
        self._drain()
        if self._calls.find(call.slot, call.generation) is not call or (call.slot, call.generation) in held:
            return
        call.ends_waiting()
        if call.future is not None and not call.future.done():
            call.future.set_exception(too_late(call, time.monotonic_ns()))

    def _delay(self, call: Call) -> None:
        """Let a request that waited long enough wait on behind all others."""
        pool = self._pools[call.lane.pool]
        call.had_its_turn()
        pool.out[call.priority] -= 1
        call.priority = pool.queues.levels
        pool.out[call.priority] += 1
        call.queued_ns = time.monotonic_ns()
        pool.queues.put(call.ticket(self._frontend), call.priority)

    # Completions ----------------------------------------------------------------------------------------------

    def on_completions(self) -> None:
        """The completion pipe is readable."""
        self._drain_once()

    def _drain(self) -> None:
        """Handle everything that has come."""
        self.mirror.drain()
        while self._drain_once():
            pass

    def _drain_once(self) -> bool:
        """Handle what one read gives. False when there was nothing."""
        records = read_completions(self._completion_fd)
        if records is None:
            return False
        releases: dict[tuple[int, int, int], int] = {}
        for record in records:
            worker, segment, block = record[4], record[5], record[6]
            if record[12] == Status.PROBE:
                self._probe_came_back(record[0])
                continue
            if segment != NO_SEGMENT:
                key = (worker, segment, block)
                releases[key] = releases.get(key, 0) + 1
            call = self._calls.find(record[0], record[1])
            if call is not None:
                self._complete(call, record)
        release_blocks(self._workers, self._frontend, releases)
        return True

    def _complete(self, call: Call, record: tuple[int, ...]) -> None:
        if record[12] == Status.EXPIRED and call.flags & _DELAY and call.future is not None:
            self._delay(call)
            return
        # Also from those whose clients have given up: under overload these are the ones that waited.
        pool = self._pools.get(call.lane.pool)
        known = pool is not None and call.enqueued_ns >= pool.changed_ns
        if known and record[12] == Status.OK and call.expectation is not None and not call.attempt:
            call.expectation.answered(call.ahead, record[10], record[11], time.monotonic_ns())
        self._finish(call)
        if call.future is None or call.future.done():
            return
        try:
            call.future.set_result(outcome(call, record, self._workers.get(record[4])))
        except Exception as error:  # noqa: BLE001 - one broken block must not cost the other answers of this read
            call.future.set_exception(error)

    def _finish(self, call: Call) -> None:
        """The ticket is accounted for: its slot and its block are free."""
        self._calls.end(call)
        call.ends_waiting()
        pool = self._pools.get(call.lane.pool)
        if pool is not None:
            pool.arena.free(call.block)
            pool.out[call.priority] -= 1
        self.retirements.end(call.lane.id)

    # When workers die -----------------------------------------------------------------------------------------

    def worker_gone(self, worker: int, *, dead: bool) -> None:
        """The worker was reaped: answer for every ticket that it held, and look for those that it lost."""
        link = self._workers.get(worker)
        if link is None:
            return
        self._drain()
        if dead:
            state, tickets = read_claims(link.claims)
            held = held_slots(tickets, self._frontend)
            for slot, generation in held:
                call = self._calls.find(slot, generation)
                if call is not None and call.lane.pool == link.pool:
                    self._recover(call, recovery(state, call.attempt))
            self.mirror.worker_died(link.pool, state, held)
            pool = self._pools.get(link.pool)
            if pool is not None:
                self._probes.send(pool)
        del self._workers[worker]
        self.links.changed(link.pool)
        self.mirror.worker_gone(worker)
        link.close()

    def _recover(self, call: Call, due: Recovery) -> None:
        pool = self._pools[call.lane.pool]
        if call.future is None:
            self._finish(call)
            return
        if due is Recovery.POISON:
            self._finish(call)
            self._recorder.poisoned(call.lane.id)
            if not call.future.done():
                call.future.set_exception(poison(call.lane))
            return
        if due is Recovery.PUT_BACK_ALONE:
            call.attempt += 1
            call.flags |= _ALONE
        call.had_its_turn()
        self._recorder.retried(call.lane.id)
        call.queued_ns = time.monotonic_ns()
        pool.queues.put(call.ticket(self._frontend), call.priority)

    def _probe_came_back(self, number: int) -> None:
        if probe := self._probes.take(number):
            if pool := self._pools.get(probe.pool):
                pool.queues.probes_back(probe.level)
            # Not now: completions that were written before the probe's may still be in the pipe or in this read.
            self._loop.call_soon(self._find_lost, probe)

    def _find_lost(self, probe: Probe) -> None:
        held = self.links.held(probe.pool)
        self._drain()
        for call in probe.lost(self._calls, held):
            self._recover(call, Recovery.PUT_BACK)
        self.mirror.find_lost(probe, held)

    def pool_gone(self, pool_id: int, reason: str) -> None:
        """No worker is left to read the queues: fail what waits there and forget the pool."""
        pool = self._pools.get(pool_id)
        if pool is None:
            return
        self._drain()
        for call in self._calls:
            if call.lane.pool == pool_id:
                self._finish(call)
                if call.future is not None and not call.future.done():
                    call.future.set_exception(
                        LaneGoneError(f"model '{call.lane.model}' failed: {reason}", call.attempt)
                    )
        del self._pools[pool_id]
        self.mirror.pool_gone(pool_id)
        pool.queues.close()
