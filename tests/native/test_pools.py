"""Pools that go while the loop in C asks for memory of theirs."""

from __future__ import annotations

import logging

import pytest

from predictd.server.control.memory import SegmentAdded
from tests.fixtures.frontend import publication
from tests.native.hot_rig import HotRig, call, play, predict, tickets, until


def test_memory_that_is_made_for_a_pool_that_has_gone_is_nobody_s(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: HotRig) -> None:
        pool = rig.add_pool()
        worker = rig.add_worker(1, pool)
        rig.publish()

        async def serve() -> None:
            waiting = call(rig, predict(1, 2))
            worker.answer(await tickets(pool, 1))
            await waiting

        # Python learns the shape, then the loop asks for memory for it, which is long in coming.
        await serve()
        rig._answers = False
        await serve()
        made = len(rig.sent)
        await until(lambda: rig.growth._granted is not None and not rig.growth._granted.done())
        rig.growth.granted(None)
        await until(lambda: any(isinstance(message, SegmentAdded) for message in rig.sent[made:]))
        rig.routes.publish(publication())
        worker.die()
        rig.dispatcher.pool_gone(1, "no worker is left")
        rig.pools.pop(1).close()
        (segment,) = (message.segment for message in rig.sent[made:] if isinstance(message, SegmentAdded))
        rig.growth.usable(1, segment)
        await until(lambda: not rig.hot._tasks)

    with caplog.at_level(logging.ERROR):
        play(scenario)
    assert not caplog.records
