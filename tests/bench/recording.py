"""What recording the metrics of a request costs, relative to all that a front end does for it."""

from __future__ import annotations

import timeit

from predictd.server.observe.recorder import FrontendRecorder
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

_AIM = 0.03
_CALLS = 50_000
_REPEATS = 7


def run(frontend_us: float) -> Report:
    """Compare with the front ends' measured CPU time a request, in microseconds."""
    recorder = FrontendRecorder()

    def record() -> None:
        recorder.answered(1, "predictd.v1", "OK", 9_300_000, 8_100_000, 140_000, 1)

    empty = min(timeit.repeat(lambda: None, number=_CALLS, repeat=_REPEATS))
    recorded = timeit.repeat(record, number=_CALLS, repeat=_REPEATS)
    each_us = [max(0.0, seconds - empty) / _CALLS * 1e6 for seconds in recorded]
    share = ratio_of_rounds(each_us, [frontend_us] * _REPEATS)
    row = ("FrontendRecorder.answered", Spread.of([us * 1e3 for us in each_us]).text(0), f"{frontend_us:.1f}")
    return Report(
        ratios=[Ratio("recording metrics over a front end's CPU a request", share, _AIM, "below")],
        tables=[Table("Recording", ("", "ns a call", "front end µs a request"), [row])],
    )
