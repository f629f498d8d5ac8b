"""Servers that were replaced are waited for."""

from __future__ import annotations

import asyncio

from predictd.server.frontend.leaving import Leaving


def test_all_are_waited_for_and_nobody_where_there_are_none() -> None:
    async def play() -> None:
        leaving, ends = Leaving(), [asyncio.Event(), asyncio.Event()]
        await leaving.wait(60)

        async def stop(end: asyncio.Event) -> None:
            await end.wait()

        stopping = [asyncio.create_task(stop(end)) for end in ends]
        for task in stopping:
            leaving.add(task)
        waiting = asyncio.create_task(leaving.wait(60))
        ends[0].set()
        await stopping[0]
        await asyncio.sleep(0)
        assert not waiting.done()
        ends[1].set()
        await waiting
        await leaving.wait(60)

    asyncio.run(play())


def test_no_longer_than_told() -> None:
    async def play() -> None:
        leaving = Leaving()
        stopping: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(3600))
        leaving.add(stopping)
        await leaving.wait(0.01)
        assert not stopping.done()
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)

    asyncio.run(play())
