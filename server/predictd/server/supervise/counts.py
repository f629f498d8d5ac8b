"""What the children counted: collected, and handed out to Prometheus and to front ends that ask."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from predictd.server.control.messages import (
    Collect,
    FrontendCounts,
    GpuSample,
    Statistics,
    StatisticsRequest,
    WorkerCounts,
)
from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.deltas import LaneStatisticsRow
from predictd.server.observe.logs import report_left_out
from predictd.server.supervise.child import Child

# Between scrapes, so that what a killed child takes with it stays small.
PERIOD_SECONDS = 2.0
ANSWER_SECONDS = 0.5
# An entry takes at most about 25 bytes, a row without its batches as much as ten of them.
ENTRIES_PER_MESSAGE = 4000
ENTRIES_PER_ROW = 10


class Counts:
    """Asks children for what they counted since the last time, and adds it up.

    Attributes:
        aggregate: The totals.
        in_flight: Of each front end, by child id, as of its last answer.
        gpus: Of each worker, by child id, what it told of its GPUs in its last answer.
    """

    def __init__(self, aggregate: Aggregate, children: Callable[[], Iterable[Child]]) -> None:
        self.aggregate = aggregate
        self.in_flight: dict[int, int] = {}
        self.gpus: dict[int, list[GpuSample]] = {}
        self._children = children
        self._sequence = itertools.count(1)
        self._waiting: dict[int, tuple[int, asyncio.Future[None]]] = {}

    async def run(self, collected: Callable[[], None]) -> None:
        """Collect from time to time, and say so."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            # As children do when they are asked.
            report_left_out()
            await self.collect()
            collected()

    async def collect(self) -> None:
        """Ask every child; those that do not answer soon are left for the next time."""
        loop = asyncio.get_running_loop()
        asked: dict[int, asyncio.Future[None]] = {}
        for child in self._children():
            seq = next(self._sequence)
            asked[seq] = loop.create_future()
            self._waiting[seq] = (child.id, asked[seq])
            child.send(Collect(seq=seq))
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=ANSWER_SECONDS)
        finally:
            for seq in asked:
                self._waiting.pop(seq, None)

    def counted(self, child: Child, message: WorkerCounts | FrontendCounts) -> None:
        """A child's answer."""
        if isinstance(message, FrontendCounts):
            self.aggregate.add_frontend(message.delta, child.id)
            self.aggregate.waits(child.id, message.waiting)
            self.in_flight[child.id] = message.in_flight
        else:
            self.aggregate.add_worker(message.delta)
            self.gpus[child.id] = message.gpus
        if message.delta.more:
            child.send(Collect(seq=message.seq))
            return
        waiting = self._waiting.pop(message.seq, None)
        if waiting is not None:
            waiting[1].set_result(None)

    def forget(self, child_id: int) -> None:
        """A child is gone."""
        self.in_flight.pop(child_id, None)
        self.gpus.pop(child_id, None)
        self.aggregate.frontend_gone(child_id)
        for seq in [seq for seq, (owner, _) in self._waiting.items() if owner == child_id]:
            self._waiting.pop(seq)[1].set_result(None)

    async def answer(self, child: Child, request: StatisticsRequest) -> None:
        """Send the statistics of all lanes, in parts that fit a message."""
        await self.collect()
        parts = list(parts_of(self.aggregate.lane_statistics()))
        for part in parts:
            child.send(Statistics(seq=request.seq, rows=part, last=part is parts[-1]))


def parts_of(rows: Sequence[LaneStatisticsRow]) -> Iterator[list[LaneStatisticsRow]]:
    """Cut statistics into messages of a bounded number of entries, at least one message."""
    part: list[LaneStatisticsRow] = []
    entries = 0
    for row in rows:
        size = ENTRIES_PER_ROW + len(row.batches)
        if part and entries + size > ENTRIES_PER_MESSAGE:
            yield part
            part, entries = [], 0
        part.append(row)
        entries += size
    yield part
