"""A worker that is broken, and the loop in C: what it writes costs at most the request that it names its answer."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import select
from typing import Any

import grpc
import pytest

from predictd.server.transport.records import NO_SEGMENT, RECORD_BYTES, Status
from tests.fixtures.fake_worker import FakeWorker
from tests.fixtures.forgeries import FORGERIES, HUGE, Forgery, forge
from tests.fixtures.frontend import doubled
from tests.native.hot_rig import HotRig, call, play, predict, started, tickets, until

RECORDS = 20_000


@pytest.fixture(autouse=True)
def _said_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    # What is logged knows the frames, and these the memory.
    caplog.set_level(logging.CRITICAL, "predictd.server.frontend")


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_completion_fails_one_request_alone(forgery: Forgery) -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        waiting = [call(rig, predict(number, number)) for number in range(3)]
        found = await tickets(pool, 3)
        assert rig.mine(found) == [True] * 3
        first, second, third = found
        worker.answer([first])
        held = next(iter(worker.held.values()))
        held.answers += forgery.segment is None and forgery.block is None
        forge(worker, second, forgery)
        worker.answer([third])
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
        assert len(failed) == 1
        assert failed[0].code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        right = {doubled(number, number) for number in range(3)}
        answers: list[Any] = [one for one in outcomes if one is not failed[0]]
        assert {one.outputs[0].data for one in answers} < right

    play(scenario)


def test_claims_on_requests_of_another_pool_put_nothing_back() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        other = rig.add_worker(2, rig.add_pool(2))
        waiting = call(rig, predict(1, 2))
        found = await tickets(pool, 1)
        assert rig.mine(found) == [True]
        other.hold(found, running=True)
        other.die()
        await until(lambda: rig.dispatcher.links.worker(2) is None)
        assert [ticket for ticket in pool.read() if not ticket.probe] == []
        worker.answer(found)
        assert (await waiting).outputs[0].data == doubled(1, 2)

    play(scenario)


def test_a_torn_record_is_not_the_end() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for size in (1, RECORD_BYTES - 1):
            os.write(rig.completions.write_fd, b"\xff" * size)
            # Until it has been read: what comes with it in one read is not told apart from it.
            await until(lambda: not _readable(rig.completions.read_fd))
            waiting = call(rig, predict(1, 2))
            worker.answer(await tickets(pool, 1))
            assert (await waiting).outputs[0].data == doubled(1, 2)

    play(scenario)


def _readable(descriptor: int) -> bool:
    ready = select.select([descriptor], [], [], 0)[0]
    return bool(ready)


def _writable(descriptor: int) -> bool:
    ready = select.select([], [descriptor], [], 0)[1]
    return bool(ready)


def test_wild_records_are_ignored_whatever_they_say() -> None:
    async def scenario(rig: HotRig) -> None:
        draw = random.Random(3)
        pool, worker = await started(rig, 1, 2)
        waiting = [call(rig, predict(number, 1)) for number in range(8)]
        found = await tickets(pool, 8)
        taken = {(ticket.slot, ticket.generation) for ticket in found}
        for _ in range(RECORDS):
            wild(worker, draw, taken)
            await asyncio.sleep(0)
            # What is not read yet takes the room of the next.
            await until(lambda: _writable(rig.completions.write_fd))
        for ticket in found:
            worker.answer([ticket])
        answers = {one.outputs[0].data for one in await asyncio.gather(*waiting)}
        assert answers == {doubled(number, 1) for number in range(8)}

    play(scenario)


def wild(worker: FakeWorker, draw: random.Random, taken: set[tuple[int, int]]) -> None:
    """A record about no request that is out."""
    slot = draw.choice((draw.randrange(256), draw.randrange(2**32), HUGE))
    generation = draw.choice((draw.randrange(4), draw.randrange(2**32), HUGE))
    if (slot, generation) in taken:
        return
    # Segment 0 is the one that it answers in.
    segment = draw.choice((1, 2, NO_SEGMENT, 1 << 31, draw.randrange(1, 2**32)))
    block = draw.choice((0, 1, HUGE, draw.randrange(2**32)))
    first, rows, batch = (draw.choice((0, 1, HUGE)) for _ in range(3))
    status = draw.choice((*Status, 4711))
    worker.send(slot, generation, first, rows, segment, block, batch, status)
