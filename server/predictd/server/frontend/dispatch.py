"""From a checked request to its answer: arena, ticket, completion, and what to do when a worker dies in between."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from predictd.server.errors import (
    InferenceError,
    OverloadedError,
)
from predictd.server.frontend.admission import Admission
from predictd.server.frontend.answers import cut
from predictd.server.frontend.calls import (
    Answered,
    Call,
    CallTable,
    Recovery,
    held_slots,
    probe_ticket,
    recovery,
)
from predictd.server.frontend.failures import LaneGoneError, failure, full, too_late
from predictd.server.frontend.inference import InputTensor
from predictd.server.frontend.pools import ArenaGrowth, PoolLink, WorkerLink
from predictd.server.frontend.queues import TicketQueues
from predictd.server.frontend.retirement import Retirements
from predictd.server.frontend.routing import Lane
from predictd.server.frontend.waiting import LaneQueue
from predictd.server.observe.recorder import FrontendRecorder
from predictd.server.transport.allocator import Block
from predictd.server.transport.blocks import CANCELLED_OFFSET, GENERATION_OFFSET
from predictd.server.transport.claims import read_claims
from predictd.server.transport.records import (
    COMPLETION_STRUCT,
    NO_DEADLINE_NS,
    NO_SEGMENT,
    RECORD_BYTES,
    RELEASE_STRUCT,
    Status,
    TicketFlag,
)

_COMPLETION = struct.Struct(COMPLETION_STRUCT)
_RELEASE = struct.Struct(RELEASE_STRUCT)
_U32 = struct.Struct("<I")
_READ_BYTES = 1024 * RECORD_BYTES
# With so few calls in flight a ticket does not wait for others that may come in the same turn.
FEW_CALLS = 2


@dataclass(frozen=True, slots=True)
class _Probe:
    """A probe on its way through a queue."""

    pool: int
    level: int
    sent_ns: int


class Dispatcher:
    """Owns everything in flight of this front end. Runs on the event loop alone.

    Attributes:
        retirements: Tells when a lane has nothing outstanding.
    """

    def __init__(
        self,
        frontend: int,
        completion_fd: int,
        in_flight_limit: int,
        growth: ArenaGrowth,
        recorder: FrontendRecorder,
    ) -> None:
        self._frontend = frontend
        self._completion_fd = completion_fd
        self._calls = CallTable(in_flight_limit)
        self._growth = growth
        self._recorder = recorder
        self._pools: dict[int, PoolLink] = {}
        self._workers: dict[int, WorkerLink] = {}
        self._probes: dict[int, _Probe] = {}
        self._probe_number = 0
        self.retirements = Retirements()

    # Links ----------------------------------------------------------------------------------------------------

    def attach_pool(
        self, pool: int, name: str, queue_fds: list[int], queue_limit: int, arena_limit_bytes: int
    ) -> None:
        """Know a pool's queues."""
        queues = TicketQueues(queue_fds, self._refuse, queue_limit)
        self._pools[pool] = PoolLink(pool, name, queues, arena_limit_bytes)

    def attach_worker(self, worker: WorkerLink) -> None:
        """Know a worker."""
        self._workers[worker.id] = worker

    def worker(self, worker: int) -> WorkerLink | None:
        """A worker's link, None when it is gone."""
        return self._workers.get(worker)

    @property
    def in_flight(self) -> int:
        """Calls whose tickets are out."""
        return len(self._calls)

    @property
    def arena_bytes(self) -> int:
        """Shared memory of all request arenas."""
        return sum(pool.arena.total_bytes for pool in self._pools.values())

    # Requests -------------------------------------------------------------------------------------------------

    async def call(
        self,
        lane: Lane,
        admission: Admission,
        tensors: Sequence[InputTensor],
        wanted: tuple[int, ...],
        queue: LaneQueue,
        deadline_ns: int,
        accepted_ns: int,
        patience_ns: int = 0,
        attempt: int = 0,
    ) -> Answered:
        """Send a request to the lane's pool and wait for its answer.

        Args:
            lane: Of the request.
            admission: What it looks like.
            tensors: Its inputs.
            wanted: Indices of the outputs.
            queue: Of its priority in this lane.
            deadline_ns: Its own, 0 for none.
            accepted_ns: When it came.
            patience_ns: How long it may wait in its queue, 0 as long as it takes.
            attempt: How often it was running in a worker that died, of a lane that is gone.

        Raises:
            RequestError: Whatever came instead of an answer.
        """
        pool = self._pools[lane.pool]
        limit = queue.rules.max_queue_size
        # A limit that is the pool's own is kept by the pipe, for all front ends together.
        if queue.out >= limit and limit < pool.queues.limit and self._waiting(queue, lane.pool) >= limit:
            raise full(lane)
        self.retirements.begin(lane.id)
        try:
            block, slot, generation = await self._make_room(lane, pool, admission.layout.size_bytes)
        except BaseException:
            self.retirements.end(lane.id)
            raise
        deadline_ns = deadline_ns or NO_DEADLINE_NS
        patient_until_ns = accepted_ns + patience_ns if patience_ns else NO_DEADLINE_NS
        delay = TicketFlag.DELAY if queue.rules.delay and patient_until_ns < deadline_ns else 0
        call = Call(
            slot=slot,
            generation=generation,
            lane=lane,
            block=block,
            wanted=wanted,
            future=asyncio.get_running_loop().create_future(),
            rows=admission.layout.rows,
            shape_key=admission.shape_key,
            flags=admission.flags | delay | (TicketFlag.ALONE if attempt else 0),
            size_bytes=admission.layout.size_bytes,
            priority=min(queue.level, pool.queues.levels),
            enqueued_ns=accepted_ns,
            deadline_ns=min(deadline_ns, patient_until_ns),
            answer_by_ns=deadline_ns,
            patience_ns=patience_ns,
            queue=queue,
            attempt=attempt,
        )
        queue.out += 1
        if patient_until_ns < deadline_ns and not delay:
            left_seconds = max(patient_until_ns - time.monotonic_ns(), 0) / 1e9
            call.timer = asyncio.get_running_loop().call_later(left_seconds, self._waited_enough, call)
        _write(pool.arena.segment_view(block.segment), block.offset, generation, admission, tensors)
        self._enqueue(pool, call)
        return await self._answer(pool, call)

    async def _make_room(self, lane: Lane, pool: PoolLink, size_bytes: int) -> tuple[Block, int, int]:
        """A block, a slot and its generation for a request. Raises RequestError."""
        block = pool.arena.allocate(size_bytes)
        if block is None:
            block = await self._growth.allocate(pool.id, pool.arena, size_bytes)
            if pool.id not in self._pools:
                raise LaneGoneError(f"model '{lane.model}' stopped to be served")
        try:
            return block, *self._calls.take_slot()
        except OverloadedError:
            pool.arena.free(block)
            raise

    def _enqueue(self, pool: PoolLink, call: Call) -> None:
        call.queued_ns = time.monotonic_ns()
        self._calls.put(call)
        few = len(self._calls) <= FEW_CALLS
        pool.queues.put(call.ticket(self._frontend), call.priority, call, at_once=few)

    def _refuse(self, call: Call) -> None:
        """The queue has no room for the ticket."""
        self._finish(call)
        if call.future is not None and not call.future.done():
            call.future.set_exception(full(call.lane))

    def _waiting(self, queue: LaneQueue, pool_id: int) -> int:
        """Requests of a lane's queue that no worker has taken."""
        taken = [self._calls.find(slot, generation) for slot, generation in self._held(pool_id)]
        return queue.out - sum(call is not None and call.queue is queue for call in taken)

    def _held(self, pool_id: int) -> set[tuple[int, int]]:
        """Our tickets that the living workers of a pool have claimed."""
        held: set[tuple[int, int]] = set()
        for link in self._workers.values():
            if link.pool == pool_id:
                held.update(held_slots(read_claims(link.claims)[1], self._frontend))
        return held

    def _waited_enough(self, call: Call) -> None:
        """Refuse a request that waits in its queue still; its ticket comes back as expired."""
        call.timer = None
        held = self._held(call.lane.pool)
        while self._drain_once():
            pass
        if self._calls.find(call.slot, call.generation) is not call or (call.slot, call.generation) in held:
            return
        call.ends_waiting()
        if call.future is not None and not call.future.done():
            call.future.set_exception(too_late(call))

    def _delay(self, call: Call) -> None:
        """Let a request that waited long enough wait on behind all others."""
        pool = self._pools[call.lane.pool]
        call.had_its_turn()
        call.priority = pool.queues.levels
        call.queued_ns = time.monotonic_ns()
        pool.queues.put(call.ticket(self._frontend), call.priority)

    async def _answer(self, pool: PoolLink, call: Call) -> Answered:
        future = call.future
        assert future is not None  # noqa: S101 - for the type checker
        try:
            return await future
        except asyncio.CancelledError:
            call.ends_waiting()
            if self._calls.find(call.slot, call.generation) is call:
                pool.arena.view(call.block)[CANCELLED_OFFSET] = 1
            raise
        finally:
            # A failure knows this frame, which must not know the failure: such a ring would keep the request's
            # tensors until the next full collection. To the table it says that nobody waits any more.
            call.future = None
            del future

    # Completions ----------------------------------------------------------------------------------------------

    def on_completions(self) -> None:
        """The completion pipe is readable."""
        self._drain_once()

    def _drain_once(self) -> bool:
        """Handle what one read gives. False when there was nothing."""
        try:
            data = os.read(self._completion_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        releases: dict[tuple[int, int, int], int] = {}
        for record in _COMPLETION.iter_unpack(data):
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
        self._release_blocks(releases)
        return True

    def _complete(self, call: Call, record: tuple[int, ...]) -> None:
        if record[12] == Status.EXPIRED and call.flags & TicketFlag.DELAY and call.future is not None:
            self._delay(call)
            return
        self._finish(call)
        if call.future is None or call.future.done():
            return
        try:
            call.future.set_result(self._outcome(call, record))
        except Exception as error:  # noqa: BLE001 - one broken block must not cost the other answers of this read
            call.future.set_exception(error)

    def _outcome(self, call: Call, record: tuple[int, ...]) -> Answered:
        """What a completion stands for. Raises RequestError when it is no answer."""
        _, _, first_row, rows, worker, segment, index, batch_rows, _, _, queue_ns, compute_ns, status = record
        link = self._workers.get(worker)
        if status == Status.OK and link is not None:
            block = link.memory.block(segment, index)
            outputs = cut(call.lane, block, link.memory.layout(block), call.wanted, first_row, rows)
            return Answered(outputs, queue_ns, compute_ns, batch_rows)
        if status == Status.EXPIRED:
            raise too_late(call)
        text = link.memory.error(segment, index) if link is not None and segment != NO_SEGMENT else ""
        raise failure(Status(status), call, text)

    def _finish(self, call: Call) -> None:
        """The ticket is accounted for: its slot and its block are free."""
        self._calls.end(call)
        call.ends_waiting()
        pool = self._pools.get(call.lane.pool)
        if pool is not None:
            pool.arena.free(call.block)
        self.retirements.end(call.lane.id)

    def _release_blocks(self, releases: dict[tuple[int, int, int], int]) -> None:
        """Give answers back, with one write a worker."""
        records: dict[int, bytearray] = {}
        for (worker, segment, block), count in releases.items():
            records.setdefault(worker, bytearray()).extend(
                _RELEASE.pack(self._frontend, segment, block, count)
            )
        for worker, joined in records.items():
            link = self._workers.get(worker)
            if link is not None:
                link.release(joined)

    # When workers die -----------------------------------------------------------------------------------------

    def worker_gone(self, worker: int, *, dead: bool) -> None:
        """The worker was reaped: answer for every ticket that it held, and look for those that it lost."""
        link = self._workers.get(worker)
        if link is None:
            return
        while self._drain_once():
            pass
        if dead:
            state, tickets = read_claims(link.claims)
            for slot, generation in held_slots(tickets, self._frontend):
                call = self._calls.find(slot, generation)
                if call is not None:
                    self._recover(call, recovery(state, call.attempt))
            pool = self._pools.get(link.pool)
            if pool is not None:
                self._send_probes(pool)
        del self._workers[worker]
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
                call.future.set_exception(
                    InferenceError(
                        f"the request crashes the engine of model '{call.lane.model}' or takes it longer than "
                        "run_timeout; it is not tried again"
                    )
                )
            return
        if due is Recovery.PUT_BACK_ALONE:
            call.attempt += 1
            call.flags |= TicketFlag.ALONE
        call.had_its_turn()
        self._recorder.retried(call.lane.id)
        call.queued_ns = time.monotonic_ns()
        pool.queues.put(call.ticket(self._frontend), call.priority)

    def _send_probes(self, pool: PoolLink) -> None:
        now_ns = time.monotonic_ns()
        # Those still out were sent before: these find what they would have found, or were lost with the worker.
        self._probes = {number: probe for number, probe in self._probes.items() if probe.pool != pool.id}
        for level in range(1, pool.queues.levels + 1):
            self._probe_number = (self._probe_number + 1) & 0xFFFFFFFF
            self._probes[self._probe_number] = _Probe(pool.id, level, now_ns)
            pool.queues.put(probe_ticket(self._frontend, self._probe_number, level, now_ns), level)

    def _probe_came_back(self, number: int) -> None:
        probe = self._probes.pop(number, None)
        if probe is not None:
            # Not now: completions that were written before the probe's may still be in the pipe or in this read.
            asyncio.get_running_loop().call_soon(self._find_lost, probe)

    def _find_lost(self, probe: _Probe) -> None:
        """A ticket older than the probe that no living worker claims and that is not completed was lost."""
        held = self._held(probe.pool)
        while self._drain_once():
            pass
        for call in self._calls:
            suspect = call.lane.pool == probe.pool and call.priority == probe.level
            if suspect and call.queued_ns < probe.sent_ns and (call.slot, call.generation) not in held:
                self._recover(call, Recovery.PUT_BACK)

    def pool_gone(self, pool_id: int, reason: str) -> None:
        """No worker is left to read the queues: fail what waits there and forget the pool."""
        pool = self._pools.get(pool_id)
        if pool is None:
            return
        while self._drain_once():
            pass
        for call in self._calls:
            if call.lane.pool == pool_id:
                self._finish(call)
                if call.future is not None and not call.future.done():
                    call.future.set_exception(
                        LaneGoneError(f"model '{call.lane.model}' failed: {reason}", call.attempt)
                    )
        del self._pools[pool_id]
        pool.queues.close()


def _write(
    segment: memoryview, offset: int, generation: int, admission: Admission, tensors: Sequence[InputTensor]
) -> None:
    """Fill a request block: the template of the shape, then the tensors."""
    head = admission.layout.head
    segment[offset : offset + len(head)] = head
    _U32.pack_into(segment, offset + GENERATION_OFFSET, generation)
    for at, placed in zip(admission.order, admission.layout.inputs, strict=True):
        if at >= 0:
            start = offset + placed.offset
            segment[start : start + placed.nbytes] = tensors[at].data
