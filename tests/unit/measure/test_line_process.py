"""Processes that are told something a line at a time, and what becomes of those that end."""

from __future__ import annotations

import pytest

from predictd.server.bench.messages import Stop
from predictd.server.bench.processes import Generators
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.line_process import LineProcess


def test_a_process_that_ends_says_so_by_its_status() -> None:
    process: LineProcess[bytes] = LineProcess("predictd.server.bench.generator", "it", lambda line: line)
    try:
        assert b"Ready" in process.hear(60)
        with pytest.raises(TimeoutError, match="it said nothing for 0 s"):
            process.hear(0.01)
        # What does not run cannot be stopped: it ends with an error.
        process.tell(Stop(drain_seconds=0))
        with pytest.raises(MeasureError, match="it ended with status 1"):
            process.hear(60)
        with pytest.raises(MeasureError, match="it ended with status 1"):
            process.tell(Stop(drain_seconds=0))
    finally:
        process.stop()


def test_a_load_generator_that_ends_ends_the_measurement() -> None:
    with (
        Generators(1) as generators,
        pytest.raises(MeasureError, match="a process of the load generator ended"),
    ):
        generators.drive([Stop(drain_seconds=0)], lambda _: False, 60)
