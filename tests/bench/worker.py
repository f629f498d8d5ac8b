"""CPU of a worker for each ticket, its engine left out: reading, planning, claiming, gathering, answering.

The worker's real parts stand on real pipes and arenas, in this process; the engine gives back what it was handed to
fill. What the front ends of it do is not counted.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from predictd.engines.api import DType, TensorSpec
from predictd.server.worker.planning import LaneRules
from tests.bench.table import Ratio, Report, Spread, Table
from tests.unit.worker.harness import FakeFrontend, FakeWorker, Sent, running
from tests.unit.worker.lanes import double, make_lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.engines.api import Signature
    from predictd.server.worker.runner import LoadedLane
    from tests.bench.settings import Settings

_AIM_US = 2.0
_AIM_TICKETS = 32
_TICKETS = (1, 8, _AIM_TICKETS)
_WIDTH = 64
_BATCHES = 200
# A batch ends far below this on any machine.
_BATCHES_UNCOUNTED = 20


class NullEngine:
    """Computes nothing: what lies in the memory for its outputs is the answer."""

    name = "null"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, _: Sequence[Any], out: Sequence[Any] | None = None) -> list[Any]:
        """Give back what was to be filled."""
        if out is None:
            raise AssertionError("outputs of a fixed size are computed in place")
        return list(out)

    def close(self) -> None:
        """Nothing to release."""


def run(settings: Settings) -> Report:
    """One row for each size of batch."""
    report = Report()
    rows = []
    for tickets in _TICKETS:
        each_us = [_microseconds_a_ticket(tickets) for _ in range(settings.profile.rounds)]
        spread = Spread.of(each_us)
        rows.append((f"{tickets} tickets a batch", spread.text(2), f"{spread.median * tickets:.1f}"))
        if tickets == _AIM_TICKETS:
            name = f"worker CPU µs a ticket in batches of {tickets}, engine left out"
            report.ratios.append(Ratio(name, spread, _AIM_US, "below"))
    report.tables.append(Table("Worker without its engine", ("", "CPU µs a ticket", "µs a batch"), rows))
    return report


def _lane() -> LoadedLane:
    shape = (-1, _WIDTH)
    lane = make_lane(
        1,
        [TensorSpec("x", DType.FP32, shape)],
        [TensorSpec("y", DType.FP32, shape)],
        double,
        max_batch_size=_AIM_TICKETS,
    )
    lane.engine = NullEngine(lane.signature)
    return lane


def _microseconds_a_ticket(tickets: int) -> float:
    """The median over many batches."""
    lane = _lane()
    spent_ns = []
    with running(lane) as worker:
        frontend = worker.frontend()
        row = np.zeros((1, _WIDTH), np.float32)
        sent = [frontend.request(lane, row) for _ in range(tickets)]
        rules = {lane.config.lane: LaneRules(_AIM_TICKETS, 0, True, (), lane.run_times.expected_ns)}
        for _ in range(_BATCHES + _BATCHES_UNCOUNTED):
            for each in sent:
                frontend.send(each)
            spent_ns.append(_one_batch_ns(worker, lane, rules, tickets))
            _answered(frontend, sent)
    return statistics.median(spent_ns[_BATCHES_UNCOUNTED:]) / tickets / 1e3


def _one_batch_ns(worker: FakeWorker, lane: LoadedLane, rules: dict[int, LaneRules], tickets: int) -> int:
    """What `predictd.server.worker.main` does between two waits for tickets."""
    began_ns = time.thread_time_ns()
    batch = worker.intake.next_batch(rules, worker.shares, lambda: True)
    if batch is None or len(batch.tickets) != tickets:
        raise AssertionError("the tickets that were sent together are not one batch")
    started_ns = time.monotonic_ns()
    compute_ns = worker.runner.run(lane, batch)
    ended_ns = time.monotonic_ns()
    lane.run_times.ran(batch.rows, ended_ns - started_ns, ended_ns)
    worker.shares.charge(lane.config.lane, compute_ns)
    return time.thread_time_ns() - began_ns


def _answered(frontend: FakeFrontend, sent: Sequence[Sent]) -> None:
    """Every ticket came back; the block of their answers is given back."""
    completions = frontend.completions()
    if {int(one["slot"]) for one in completions} != {each.slot for each in sent}:
        raise AssertionError("not every ticket was answered, and each once")
    frontend.release(completions[0], len(completions))
