"""Whoever comes first, and whoever dies meanwhile: in the end all the living know each other."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from predictd.server.control.memory import SegmentAdded, SegmentRetired, SegmentUsable
from predictd.server.control.messages import (
    AttachFrontend,
    AttachPool,
    AttachWorker,
    DetachFrontend,
    PoolGone,
    WorkerGone,
)
from predictd.server.supervise.pool import Place, Pool, SharedSegment
from predictd.server.supervise.wiring import Wiring
from predictd.server.transport.pipes import make_pipe
from tests.fixtures.supervision import PLAN, FakeChild, claims_fd, segment_fd

SEGMENT_BYTES = 4096


@dataclass
class Family:
    """A wiring, its children, and everything to close."""

    mapped: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    pools: dict[int, Pool] = field(default_factory=dict)
    workers: dict[int, tuple[Pool, FakeChild]] = field(default_factory=dict)
    frontends: dict[int, FakeChild] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    segments: int = 0
    retired: set[tuple[int, tuple[int, int]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wiring = Wiring(self.mapped.append, self.idle.append)
        self._next = iter(range(1, 10**6))

    def pool(self, number: int = 1) -> Pool:
        pool = self.pools[number] = Pool(number, f"pool {number}", (PLAN,), 64)
        self.wiring.add_pool(pool)
        return pool

    def _place(self, child: FakeChild) -> Place:
        place = self.places[child.id] = Place(0, PLAN)
        place.pipe = make_pipe()
        place.child = child  # type: ignore[assignment]
        return place

    def worker(self, pool: Pool) -> FakeChild:
        child = FakeChild(next(self._next))
        self.workers[child.id] = (pool, child)
        self.wiring.add_worker(pool, self._place(child), child)  # type: ignore[arg-type]
        return child

    def frontend(self) -> FakeChild:
        child = FakeChild(next(self._next))
        self.frontends[child.id] = child
        self.wiring.add_frontend(self._place(child), child)  # type: ignore[arg-type]
        return child

    def claims(self, worker: FakeChild) -> None:
        self.wiring.claims(worker, claims_fd())  # type: ignore[arg-type]

    def segment(self, owner: FakeChild, pool: int) -> SegmentAdded:
        self.segments += 1
        message = SegmentAdded(
            seq=0, owner=owner.id, pool=pool, segment=self.segments, block_bytes=512, blocks=8
        )
        self.wiring.segment_added(owner, message, segment_fd(SEGMENT_BYTES))  # type: ignore[arg-type]
        return message

    def retire(self, owner: FakeChild, pool: int, segment: int) -> None:
        self.retired.add((owner.id, (pool, segment)))
        self.wiring.segment_retired(owner, pool, segment)  # type: ignore[arg-type]

    def usable(self) -> list[tuple[FakeChild, SharedSegment]]:
        """Segments that their owners use."""
        children = [*self.frontends.values(), *(child for _, child in self.workers.values())]
        return [
            (child, segment)
            for child in children
            for segment in self.places[child.id].segments
            if SegmentUsable(pool=segment.pool, segment=segment.segment) in child.got(SegmentUsable)
        ]

    def unacknowledged(self) -> list[tuple[FakeChild, int]]:
        children = [*self.frontends.values(), *(child for _, child in self.workers.values())]
        return [
            (child, message.seq)
            for child in children
            for message, _ in child.sent
            if isinstance(message, AttachPool | AttachWorker | AttachFrontend | SegmentAdded | SegmentRetired)
            and message.seq not in self.acknowledged
        ]

    def acknowledge(self, seq: int) -> None:
        self.acknowledged.add(seq)
        self.wiring.acknowledged(seq)

    def acknowledge_all(self) -> None:
        while pending := self.unacknowledged():
            for _, seq in pending:
                self.acknowledge(seq)

    def bury(self, child: FakeChild) -> None:
        if child.id in self.workers:
            del self.workers[child.id]
            self.wiring.worker_gone(child, dead=True)  # type: ignore[arg-type]
        else:
            del self.frontends[child.id]
            self.wiring.frontend_gone(child)  # type: ignore[arg-type]
        self.places.pop(child.id).clear()

    def close(self) -> None:
        self.wiring.close()
        for place in self.places.values():
            place.clear()


@pytest.fixture
def family() -> Iterator[Family]:
    one = Family()
    yield one
    one.close()


def test_a_frontend_learns_of_pools_with_one_queue_a_priority(family: Family) -> None:
    family.pool(1)
    frontend = family.frontend()
    family.pool(2)
    assert [message.pool for message in frontend.got(AttachPool)] == [1, 2]
    assert [fds for message, fds in frontend.sent if isinstance(message, AttachPool)] == [3, 3]


def test_a_child_without_anybody_to_know_is_mapped_at_once(family: Family) -> None:
    worker = family.worker(family.pool())
    family.claims(worker)
    assert family.wiring.is_mapped(worker.id)
    assert family.mapped == []


def test_a_worker_and_a_frontend_wait_for_each_other(family: Family) -> None:
    frontend = family.frontend()
    worker = family.worker(family.pool())
    family.claims(worker)
    assert not family.wiring.is_mapped(worker.id)
    assert not family.wiring.is_mapped(frontend.id)
    (pool,), (attached,) = frontend.got(AttachPool), frontend.got(AttachWorker)
    (introduced,) = worker.got(AttachFrontend)
    assert (attached.worker, attached.pool, introduced.frontend) == (worker.id, 1, frontend.id)
    family.acknowledge(introduced.seq)
    assert family.mapped == []
    family.acknowledge(attached.seq)
    assert family.mapped == [worker.id], "the front end has not mapped the pool yet"
    family.acknowledge(pool.seq)
    assert family.mapped == [worker.id, frontend.id]


def test_a_segment_is_usable_once_every_reader_has_mapped_it(family: Family) -> None:
    pool = family.pool()
    workers = [family.worker(pool), family.worker(pool)]
    other = family.worker(family.pool(2))
    frontend = family.frontend()
    family.acknowledge_all()
    family.segment(frontend, pool=1)
    copies = [worker.got(SegmentAdded)[0] for worker in workers]
    assert [(copy.owner, copy.pool, copy.blocks) for copy in copies] == [(frontend.id, 1, 8)] * 2
    assert other.got(SegmentAdded) == []
    family.acknowledge(copies[0].seq)
    assert frontend.got(SegmentUsable) == []
    family.acknowledge(copies[1].seq)
    assert frontend.got(SegmentUsable) == [SegmentUsable(pool=1, segment=copies[0].segment)]
    assert family.places[frontend.id].arena_bytes == SEGMENT_BYTES


def test_a_segment_that_nobody_reads_is_usable_at_once(family: Family) -> None:
    family.pool()
    frontend = family.frontend()
    family.acknowledge_all()
    added = family.segment(frontend, pool=1)
    assert frontend.got(SegmentUsable) == [SegmentUsable(pool=1, segment=added.segment)]


def test_a_segment_of_a_pool_that_is_gone_is_kept_by_nobody(family: Family) -> None:
    pool = family.pool()
    frontend = family.frontend()
    family.acknowledge_all()
    family.segment(frontend, pool=1)
    family.wiring.remove_pool(pool, "crash loop")
    late = family.segment(frontend, pool=1)
    assert frontend.got(PoolGone) == [PoolGone(pool=1, reason="crash loop")]
    assert frontend.got(SegmentUsable)[-1].segment == late.segment
    assert family.places[frontend.id].arena_bytes == 0
    family.wiring.remove_pool(pool, "again")
    assert len(frontend.got(PoolGone)) == 1


def test_who_comes_later_gets_the_memory_that_is_there(family: Family) -> None:
    pool = family.pool()
    worker, frontend = family.worker(pool), family.frontend()
    family.claims(worker)
    answers, requests = family.segment(worker, pool=1), family.segment(frontend, pool=1)
    late_worker, late_frontend = family.worker(pool), family.frontend()
    assert [copy.segment for copy in late_worker.got(SegmentAdded)] == [requests.segment]
    assert [copy.segment for copy in late_frontend.got(SegmentAdded)] == [answers.segment]
    order = [type(message) for message, _ in late_frontend.sent]
    assert order.index(AttachWorker) < order.index(SegmentAdded)


def test_a_segment_counts_until_every_reader_has_unmapped_it(family: Family) -> None:
    pool, other = family.pool(), family.pool(2)
    worker, second, stranger = family.worker(pool), family.worker(pool), family.worker(other)
    frontend = family.frontend()
    kept, gone = family.segment(frontend, pool=1), family.segment(frontend, pool=1)
    family.acknowledge_all()
    place = family.places[frontend.id]
    family.retire(frontend, 1, gone.segment)
    assert (place.arena_bytes, place.given_back_bytes) == (2 * SEGMENT_BYTES, 0)
    copies = [*worker.got(SegmentRetired), *second.got(SegmentRetired)]
    assert [(one.owner, one.pool, one.segment) for one in copies] == [(frontend.id, 1, gone.segment)] * 2
    assert stranger.got(SegmentRetired) == []
    family.acknowledge(copies[0].seq)
    assert place.arena_bytes == 2 * SEGMENT_BYTES
    late = family.worker(pool)
    assert [copy.segment for copy in late.got(SegmentAdded)] == [kept.segment]
    family.acknowledge(copies[1].seq)
    assert (place.arena_bytes, place.given_back_bytes) == (SEGMENT_BYTES, SEGMENT_BYTES)
    family.retire(frontend, 1, gone.segment)
    assert len(worker.got(SegmentRetired)) == 1, "told once"


def test_answers_are_unmapped_by_every_front_end_and_a_dead_one_keeps_nobody_waiting(family: Family) -> None:
    worker, stays, dies = family.worker(family.pool()), family.frontend(), family.frontend()
    family.claims(worker)
    added = family.segment(worker, pool=1)
    family.acknowledge_all()
    family.retire(worker, 1, added.segment)
    (copy,) = stays.got(SegmentRetired)
    family.acknowledge(copy.seq)
    assert family.places[worker.id].arena_bytes == SEGMENT_BYTES
    family.bury(dies)
    assert family.places[worker.id].arena_bytes == 0


def test_an_owner_that_dies_while_its_memory_is_unmapped_leaves_its_successor_alone(family: Family) -> None:
    pool = family.pool()
    worker, frontend = family.worker(pool), family.frontend()
    added = family.segment(frontend, pool=1)
    family.acknowledge_all()
    family.retire(frontend, 1, added.segment)
    (copy,) = worker.got(SegmentRetired)
    family.bury(frontend)
    successor = family.frontend()
    # Numbers begin anew with each incarnation.
    family.segments = added.segment - 1
    again = family.segment(successor, pool=1)
    assert again.segment == added.segment
    family.acknowledge(copy.seq)
    assert family.places[successor.id].arena_bytes == SEGMENT_BYTES
    family.acknowledge_all()
    assert successor.got(SegmentUsable) == [SegmentUsable(pool=1, segment=again.segment)]


def test_memory_of_a_pool_that_is_gone_is_not_waited_for(family: Family) -> None:
    pool = family.pool()
    worker, frontend = family.worker(pool), family.frontend()
    first, second = family.segment(frontend, pool=1), family.segment(frontend, pool=1)
    family.acknowledge_all()
    family.retire(frontend, 1, first.segment)
    family.wiring.remove_pool(pool, "gone")
    assert family.places[frontend.id].arena_bytes == 0
    family.retire(frontend, 1, second.segment)
    family.bury(worker)
    assert family.places[frontend.id].arena_bytes == 0


def test_a_reader_that_dies_keeps_nobody_waiting(family: Family) -> None:
    pool = family.pool()
    worker, frontend = family.worker(pool), family.frontend()
    family.claims(worker)
    family.acknowledge_all()
    family.mapped.clear()
    added = family.segment(frontend, pool=1)
    late = family.worker(pool)
    family.bury(worker)
    assert frontend.got(SegmentUsable) == []
    family.bury(late)
    assert frontend.got(SegmentUsable) == [SegmentUsable(pool=1, segment=added.segment)]
    assert [gone.worker for gone in frontend.got(WorkerGone)] == [worker.id, late.id]
    assert frontend.id in family.mapped


def test_a_frontend_that_dies_is_detached_and_keeps_no_worker_waiting(family: Family) -> None:
    worker, frontend = family.worker(family.pool()), family.frontend()
    family.claims(worker)
    (introduced,) = worker.got(AttachFrontend)
    family.acknowledge(introduced.seq)
    family.bury(frontend)
    assert worker.got(DetachFrontend) == [DetachFrontend(frontend=frontend.id)]
    assert worker.id in family.mapped
    family.segment(worker, pool=1)
    assert len(worker.got(SegmentUsable)) == 1


def test_the_dead_are_buried_once(family: Family) -> None:
    worker, frontend = family.worker(family.pool()), family.frontend()
    for child in (worker, frontend):
        family.bury(child)
    family.wiring.worker_gone(worker, dead=True)  # type: ignore[arg-type]
    family.wiring.frontend_gone(frontend)  # type: ignore[arg-type]
    assert len(frontend.got(WorkerGone)) == 1
    assert worker.got(DetachFrontend) == []


def test_a_dead_worker_hands_the_baton_on(family: Family) -> None:
    pool = family.pool()
    worker = family.worker(pool)
    family.bury(worker)
    assert os.read(pool.baton.read_fd, 64) == b"\0"


@pytest.mark.parametrize("seed", range(60))
def test_in_any_order_every_living_pair_ends_up_wired(family: Family, seed: int) -> None:
    draw = random.Random(seed)
    pools = [family.pool(1)]
    claimed: set[int] = set()
    for _ in range(60):
        workers = [child for _, child in family.workers.values()]
        match draw.choices(
            ["pool", "worker", "frontend", "claims", "segment", "retire", "ack", "die"],
            [1, 3, 3, 4, 4, 2, 12, 2],
        )[0]:
            case "pool" if len(pools) < 3:
                pools.append(family.pool(len(pools) + 1))
            case "worker":
                family.worker(draw.choice(pools))
            case "frontend":
                family.frontend()
            case "claims" if unclaimed := [child for child in workers if child.id not in claimed]:
                child = draw.choice(unclaimed)
                claimed.add(child.id)
                family.claims(child)
            case "segment" if owners := [*family.frontends.values(), *workers]:
                owner = draw.choice(owners)
                mine = family.workers.get(owner.id)
                family.segment(owner, mine[0].id if mine else draw.choice(pools).id)
            case "retire" if known := family.usable():
                owner, segment = draw.choice(known)
                family.retire(owner, segment.pool, segment.segment)
            case "ack" if pending := family.unacknowledged():
                family.acknowledge(draw.choice(pending)[1])
            case "die" if living := [*family.frontends.values(), *workers]:
                family.bury(draw.choice(living))
    for _, child in family.workers.values():
        if child.id not in claimed:
            family.claims(child)
    waiting = [one for one in (*family.workers, *family.frontends) if not family.wiring.is_mapped(one)]
    family.mapped.clear()
    family.acknowledge_all()
    check_wired(family)
    alive = {*family.workers, *family.frontends}
    assert all(family.wiring.is_mapped(number) for number in alive)
    assert sorted(number for number in family.mapped if number in alive) == sorted(waiting), (
        "each is told once"
    )


def check_wired(family: Family) -> None:
    for frontend in family.frontends.values():
        attached = {(one.worker, one.pool) for one in frontend.got(AttachWorker)}
        assert {one.pool for one in frontend.got(AttachPool)} == set(family.pools)
        for number, (pool, worker) in family.workers.items():
            assert (number, pool.id) in attached
            assert [one.frontend for one in worker.got(AttachFrontend)].count(frontend.id) == 1
            for owner, reader in ((frontend, worker), (worker, frontend)):
                segments = [s.segment for s in family.places[owner.id].segments if s.pool == pool.id]
                received = [s.segment for s in reader.got(SegmentAdded) if s.owner == owner.id]
                assert set(segments) <= set(received)
    for owner in (*family.frontends.values(), *(child for _, child in family.workers.values())):
        usable = [(one.pool, one.segment) for one in owner.got(SegmentUsable)]
        place = family.places[owner.id]
        retired = {segment for number, segment in family.retired if number == owner.id}
        assert sorted(one for one in usable if one not in retired) == sorted(
            (s.pool, s.segment) for s in place.segments
        )
        assert (place.retired, place.arena_bytes) == ([], SEGMENT_BYTES * len(place.segments))
