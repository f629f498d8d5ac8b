"""What holds up an event loop is measured."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest

from predictd.server.frontend.pauses import LOOK_SECONDS, watch_collections, watch_loop
from predictd.server.observe.recorder import TimeRecorder


@pytest.fixture
def recorder() -> Iterator[TimeRecorder]:
    callbacks = gc.callbacks.copy()
    yield TimeRecorder()
    gc.callbacks[:] = callbacks


def test_a_loop_that_is_held_up_is_late(recorder: TimeRecorder) -> None:
    async def scenario() -> None:
        watch_loop(asyncio.get_running_loop(), recorder)
        await asyncio.sleep(3 * LOOK_SECONDS)
        assert sum(recorder.take().buckets) >= 1
        time.sleep(0.5 + LOOK_SECONDS)  # noqa: ASYNC251 - that is what is measured
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert recorder.take().total_ns >= 0.5 * 1e9

    asyncio.run(scenario())


def test_each_collection_counts(recorder: TimeRecorder) -> None:
    gc.disable()
    try:
        watch_collections(recorder)
        before_ns = time.monotonic_ns()
        gc.collect()
        gc.collect()
        after_ns = time.monotonic_ns()
    finally:
        gc.enable()
    series = recorder.take()
    assert sum(series.buckets) == 2
    assert 0 < series.total_ns <= after_ns - before_ns
    assert recorder.take().buckets == []
