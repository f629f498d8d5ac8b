"""Who must know whose memory and pipes: the wiring between front ends and workers.

Every front end of this moment is wired to every worker of this moment, whichever of them came first. Writers
use a segment, workers take tickets and front ends listen only once everybody concerned has acknowledged.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from predictd.server.control.memory import SegmentAdded, SegmentRetired, SegmentUsable
from predictd.server.control.messages import (
    AttachFrontend,
    AttachPool,
    AttachWorker,
    DetachFrontend,
    PoolGone,
    RetireLane,
    WorkerGone,
)
from predictd.server.control.publication import PublishModel
from predictd.server.supervise.acks import Acknowledgements, Matter
from predictd.server.supervise.child import Child
from predictd.server.supervise.pool import Place, Pool, SharedSegment
from predictd.server.transport.claims import CLAIMS_BYTES
from predictd.server.transport.memory import check_shared, map_shared


@dataclass(frozen=True, slots=True)
class ChildMapped:
    """Matter: everything that a child must map, and that others must map for it, is mapped."""

    child: int


@dataclass(frozen=True, slots=True)
class SegmentMapped:
    """Matter: every reader mapped a segment."""

    owner: int
    pool: int
    segment: int


@dataclass(frozen=True, slots=True)
class SegmentUnmapped:
    """Matter: no reader has a retired segment mapped."""

    owner: int
    pool: int
    segment: int


@dataclass(frozen=True, slots=True)
class Published:
    """Matter: every front end took in a publication that somebody waits for."""

    number: int


@dataclass(frozen=True, slots=True)
class LaneIdle:
    """Matter: no front end has anything of a retired lane outstanding."""

    lane: int


class Wiring:
    """The living children and the acknowledgements between them.

    Args:
        on_mapped: Called when a child's wiring is complete.
        on_idle: Called when a retired lane is finished with.
    """

    def __init__(self, on_mapped: Callable[[int], None], on_idle: Callable[[int], None]) -> None:
        self._on_mapped = on_mapped
        self._on_idle = on_idle
        self._acks = Acknowledgements()
        self._workers: dict[int, tuple[Pool, Place, Child]] = {}
        self._frontends: dict[int, tuple[Place, Child]] = {}
        self._pools: dict[int, Pool] = {}
        self._usable: set[SegmentMapped] = set()
        self._published: dict[Published, Callable[[], None]] = {}
        self._numbers = itertools.count(1)

    def is_mapped(self, child_id: int) -> bool:
        """Whether a child's wiring is complete now."""
        return self._acks.is_settled(ChildMapped(child_id))

    # Pools --------------------------------------------------------------------------------------------------

    def add_pool(self, pool: Pool) -> None:
        """Tell the front ends of a pool."""
        self._pools[pool.id] = pool
        for _, child in self._frontends.values():
            self._attach_pool(child, pool)

    def remove_pool(self, pool: Pool, reason: str) -> None:
        """No worker of the pool is left and none will come."""
        if self._pools.pop(pool.id, None) is not None:
            for place, child in self._frontends.values():
                child.send(PoolGone(pool=pool.id, reason=reason))
                place.drop_segments(pool.id)
            pool.close()

    def _attach_pool(self, child: Child, pool: Pool) -> None:
        seq = self._acks.expect(child.id, ChildMapped(child.id))
        fds = [queue.write_fd for queue in pool.queues]
        message = AttachPool(
            seq=seq, pool=pool.id, name=pool.name, priorities=len(fds), queue_limit=pool.queue_limit
        )
        child.send(message, fds)

    # Children -----------------------------------------------------------------------------------------------

    def add_worker(self, pool: Pool, place: Place, child: Child) -> None:
        """A worker was initialised: give it the front ends of now."""
        self._workers[child.id] = (pool, place, child)
        for frontend_place, frontend in self._frontends.values():
            self._introduce(frontend_place, frontend, pool, child)

    def add_frontend(self, place: Place, child: Child) -> None:
        """A front end was initialised: introduce it to the pools and workers of now, and them to it."""
        self._frontends[child.id] = (place, child)
        for pool in self._pools.values():
            self._attach_pool(child, pool)
        for pool, worker_place, worker in self._workers.values():
            if worker_place.claims_fd is not None:
                self._attach_worker(child, pool, worker_place, worker)
            self._introduce(place, child, pool, worker)

    def _introduce(self, place: Place, frontend: Child, pool: Pool, worker: Child) -> None:
        """Give a worker the completion pipe of a front end, and its memory for this pool."""
        if place.pipe is None:
            return
        seq = self._acks.expect(worker.id, ChildMapped(worker.id), ChildMapped(frontend.id))
        worker.send(AttachFrontend(seq=seq, frontend=frontend.id), [place.pipe.write_fd])
        for segment in place.segments:
            if segment.pool == pool.id:
                self._send_segment(worker, frontend, segment)

    def _attach_worker(self, frontend: Child, pool: Pool, place: Place, worker: Child) -> None:
        """Give a front end a worker's release pipe, claims and memory."""
        if place.pipe is None or place.claims_fd is None:
            return
        seq = self._acks.expect(frontend.id, ChildMapped(worker.id), ChildMapped(frontend.id))
        fds = [place.pipe.write_fd, place.claims_fd]
        frontend.send(AttachWorker(seq=seq, worker=worker.id, pool=pool.id), fds)
        for segment in place.segments:
            self._send_segment(frontend, worker, segment)

    def claims(self, child: Child, fd: int) -> None:
        """A worker sent its claim table. Raises ValueError if that cannot be read, or was sent before."""
        pool, place, _ = self._workers[child.id]
        try:
            if place.claims_fd is not None:
                raise ValueError("a worker has one claim table")
            place.claims = map_shared(fd, CLAIMS_BYTES)
        except ValueError:
            os.close(fd)
            raise
        place.claims_fd = fd
        for _, frontend in self._frontends.values():
            self._attach_worker(frontend, pool, place, child)

    def worker_gone(self, child: Child, *, dead: bool) -> None:
        """A worker was reaped."""
        known = self._workers.pop(child.id, None)
        if known is None:
            return
        pool, _, _ = known
        for _, frontend in self._frontends.values():
            frontend.send(WorkerGone(worker=child.id, pool=pool.id, dead=dead))
        pool.wake_followers()
        self._forget(child.id)

    def frontend_gone(self, child: Child) -> None:
        """A front end was reaped."""
        if self._frontends.pop(child.id, None) is None:
            return
        for _, _, worker in self._workers.values():
            worker.send(DetachFrontend(frontend=child.id))
        self._forget(child.id)

    def _forget(self, child_id: int) -> None:
        self._usable = {matter for matter in self._usable if matter.owner != child_id}
        self._settled(self._acks.forget(child_id))

    def retire(self, lane: int) -> None:
        """Have every front end say when it is finished with a lane, which none of them is told of any more."""
        for _, frontend in self._frontends.values():
            frontend.send(RetireLane(seq=self._acks.expect(frontend.id, LaneIdle(lane)), lane=lane))
        if self._acks.is_settled(LaneIdle(lane)):
            self._on_idle(lane)

    def publish(self, publication: PublishModel, done: Callable[[], None]) -> None:
        """Tell every front end of a model; `done` is called once all of them took it in."""
        matter = Published(next(self._numbers))
        self._published[matter] = done
        for _, frontend in self._frontends.values():
            seq = self._acks.expect(frontend.id, matter)
            frontend.send(msgspec.structs.replace(publication, seq=seq))
        if self._acks.is_settled(matter):
            self._settled([matter])

    # Segments -----------------------------------------------------------------------------------------------

    def segment_added(self, child: Child, message: SegmentAdded, fd: int) -> None:
        """A child made a segment: keep it, and pass it to all who read it, and who would end if they could not.

        Raises:
            ValueError: It cannot be read as it was announced.
        """
        try:
            check_shared(fd, message.block_bytes * message.blocks)
        except ValueError:
            os.close(fd)
            raise
        segment = SharedSegment(message.pool, message.segment, message.block_bytes, message.blocks, fd)
        if child.id in self._workers:
            self._workers[child.id][1].segments.append(segment)
            readers = self._readers(child.id, segment.pool)
        elif segment.pool not in self._pools:
            # The pool went while its memory was made: nobody reads it, and PoolGone tells its maker.
            os.close(fd)
            readers = []
        else:
            self._frontends[child.id][0].segments.append(segment)
            readers = self._readers(child.id, segment.pool)
        for reader in readers:
            self._send_segment(reader, child, segment)
        matter = SegmentMapped(child.id, segment.pool, segment.segment)
        if self._acks.is_settled(matter):
            self._settled([matter])

    def segment_retired(self, child: Child, pool: int, segment: int) -> None:
        """A child has given a segment back: have its readers unmap it. Until they have, its bytes count."""
        place = self._place(child.id)
        if place is None or not place.retire(pool, segment):
            return
        matter = SegmentUnmapped(child.id, pool, segment)
        for reader in self._readers(child.id, pool):
            seq = self._acks.expect(reader.id, matter)
            reader.send(SegmentRetired(seq=seq, owner=child.id, pool=pool, segment=segment))
        if self._acks.is_settled(matter):
            self._settled([matter])

    def _readers(self, owner: int, pool_id: int) -> list[Child]:
        """Who maps the memory that a child has for a pool."""
        if owner in self._workers:
            return [frontend for _, frontend in self._frontends.values()]
        return [worker for pool, _, worker in self._workers.values() if pool.id == pool_id]

    def _send_segment(self, reader: Child, owner: Child, segment: SharedSegment) -> None:
        matters = (
            SegmentMapped(owner.id, segment.pool, segment.segment),
            ChildMapped(owner.id),
            ChildMapped(reader.id),
        )
        reader.send(
            SegmentAdded(
                seq=self._acks.expect(reader.id, *matters),
                owner=owner.id,
                pool=segment.pool,
                segment=segment.segment,
                block_bytes=segment.block_bytes,
                blocks=segment.blocks,
            ),
            [segment.fd],
        )

    def acknowledged(self, seq: int) -> None:
        """A child sent an Ack."""
        self._settled(self._acks.acknowledge(seq))

    def _settled(self, matters: list[Matter]) -> None:
        for matter in matters:
            match matter:
                case ChildMapped(child=child_id):
                    self._on_mapped(child_id)
                case LaneIdle(lane=lane):
                    self._on_idle(lane)
                case Published():
                    self._published.pop(matter)()
                case SegmentMapped(owner=owner, pool=pool, segment=segment):
                    child = self._child(owner)
                    # Once: readers that come later map it before they do anything else.
                    if child is not None and matter not in self._usable:
                        self._usable.add(matter)
                        child.send(SegmentUsable(pool=pool, segment=segment))
                case SegmentUnmapped(owner=owner, pool=pool, segment=segment):
                    self._usable.discard(SegmentMapped(owner, pool, segment))
                    place = self._place(owner)
                    # Gone with its owner, if that is dead.
                    if place is not None:
                        place.unmapped(pool, segment)
                case _:
                    raise TypeError(f"{matter!r} is no matter of the wiring. This is a bug.")

    def _place(self, child_id: int) -> Place | None:
        if child_id in self._workers:
            return self._workers[child_id][1]
        return self._frontends[child_id][0] if child_id in self._frontends else None

    def _child(self, child_id: int) -> Child | None:
        if child_id in self._workers:
            return self._workers[child_id][2]
        return self._frontends[child_id][1] if child_id in self._frontends else None

    def close(self) -> None:
        """Give up the pipes of all pools."""
        for pool in self._pools.values():
            pool.close()
