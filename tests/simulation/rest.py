"""What an idle daemon must not have: anything under way, or anything kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.server.supervise.pool import Pool
from predictd.server.supervise.states import State
from predictd.server.transport.claims import ClaimState, read_claims
from tests.simulation.frontend_process import FrontendProcess
from tests.simulation.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.world import World


def unrest(world: World) -> list[str]:
    """All that is under way or kept."""
    found = [*_of_supervisor(world)]
    for door in world.frontends():
        found += _of_frontend(door)
    for worker in world.workers():
        found += _of_worker(worker)
    return found


def _of_supervisor(world: World) -> Iterator[str]:
    supervisor = world.supervisor
    for record in supervisor.catalog.records():
        if record.state in ("LOADING", "UNLOADING"):
            yield f"{record.name} (lane {record.config.lane}) is {record.state}"
    for place in supervisor._frontends.places:
        if place.state is not State.SERVING:
            yield f"front end {place.index} is {place.state}"
    for pool in supervisor._workers.pools.values():
        yield from _of_pool(pool)
    yield from _of_memory(world)
    if supervisor._wiring._acks._owed:
        yield f"acknowledgements are owed: {supervisor._wiring._acks._owed}"
    for child in world.children:
        if child.process.inbox or child.process.outbox:
            yield f"messages from or to {child.title} #{child.id} are under way"
        if not child.process.alive:
            yield f"{child.title} #{child.id} is dead and not reaped"


def _of_memory(world: World) -> Iterator[str]:
    """Owners, the supervisor and readers must agree on which segments there are."""
    wiring = world.supervisor._wiring
    doors = {door.id: door for door in world.frontends()}
    workers = {worker.id: worker.worker for worker in world.workers()}
    for number, (place, child) in wiring._frontends.items():
        if place.retired:
            yield f"{child.title} waits for {len(place.retired)} segments to be unmapped"
        known = {(segment.pool, segment.segment) for segment in place.segments}
        if (door := doors.get(number)) is not None and door.frontend is not None:
            pools = door.frontend._dispatcher._pools
            owned = {(pool.id, segment) for pool in pools.values() for segment in pool.arena._segments}
            if owned != known:
                yield f"{child.title} owns segments {owned}, the supervisor knows {known}"
        for pool, _, reader in wiring._workers.values():
            mapper = workers.get(reader.id)
            mapped = {key[1] for key in mapper._memory._segments if key[0] == number} if mapper else set()
            if mapper is not None and mapped != {segment for at, segment in known if at == pool.id}:
                yield f"{reader.title} has segments {mapped} of {child.title} mapped, which has {known}"
    for number, (_, place, child) in wiring._workers.items():
        known = {(0, segment.segment) for segment in place.segments}
        owner = workers.get(number)
        if place.retired:
            yield f"{child.title} waits for {len(place.retired)} segments to be unmapped"
        if owner is not None and {(0, segment) for segment in owner._responses._arena._segments} != known:
            yield f"{child.title} owns segments that the supervisor does not know, or the other way round"
        for door in doors.values():
            link = door.frontend._dispatcher.links.worker(number) if door.frontend is not None else None
            if link is not None and {(0, segment) for segment in link.memory._segments} != known:
                yield f"{door.title} has segments of {child.title} mapped that it does not have, or too few"


def _of_pool(pool: Pool) -> Iterator[str]:
    for place in pool.places:
        if place.state not in (State.SERVING, State.FAILED, State.STOPPED):
            yield f"worker {place.index} of pool {pool.name} is {place.state}"
    if pool.gone:
        return
    for level, queue in enumerate(pool.queues, 1):
        if queue.depth():
            yield f"{queue.depth()} tickets wait in queue {level} of pool {pool.name}"
    if pool.carry.depth():
        yield f"{pool.carry.depth()} tickets are in the carry of pool {pool.name}"


def _of_frontend(door: FrontendProcess) -> Iterator[str]:
    if door.frontend is None:
        yield f"{door.title} is not initialised"
        return
    dispatcher = door.frontend._dispatcher
    if dispatcher.in_flight:
        yield f"{door.title} has {dispatcher.in_flight} calls in flight"
    for pool in dispatcher._pools.values():
        if pool.arena.used_blocks:
            yield f"{door.title} keeps {pool.arena.used_blocks} request blocks"
        if any(pool.queues._waiting):
            yield f"{door.title} has tickets that wait for room"
    if dispatcher.retirements._active:
        yield f"{door.title} counts requests of lanes {dict(dispatcher.retirements._active)}"
    for model in door.frontend._routes._models.values():
        for lane in model.lanes.values():
            for queue in lane.queues._queues:
                if queue.out:
                    yield f"{door.title} counts {queue.out} requests in queue {queue.level} of lane {lane.id}"


def _of_worker(process: WorkerProcess) -> Iterator[str]:
    worker = process.worker
    if worker is None:
        yield f"{process.title} is not initialised"
        return
    if read_claims(worker._claims._map)[0] is not ClaimState.IDLE:
        yield f"{process.title} holds claims"
        return
    worker._responses.collect_releases()
    if worker._responses._held:
        yield f"{process.title} holds answers {dict(worker._responses._held)}"
    elif worker._responses._arena.used_blocks:
        yield f"{process.title} keeps {worker._responses._arena.used_blocks} response blocks"
