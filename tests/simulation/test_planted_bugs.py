"""The simulator finds bugs: three that were planted, each in one decision of the real code."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from predictd.server.frontend.calls import Call
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.lost import Probes
from predictd.server.frontend.pools import PoolLink
from tests.simulation.play import play, search, shrink
from tests.simulation.world import Replacement

SEEDS = 2000
# Some hang together by the moments at which all their parts come, so that nothing can be left out.
FOUND_MAX = 4
SMALL_PARTS = 10


def lost_ticket() -> Replacement:
    """After a death only what goes first is looked for."""
    real: Callable[[Probes, PoolLink], None] = Probes.send

    def send(probes: Probes, pool: PoolLink) -> None:
        real(probes, pool)
        probes._out = {number: probe for number, probe in probes._out.items() if probe.level == 1}

    return Probes, "send", send


def double_answer() -> Replacement:
    """What a dead worker claimed is put back although it may have been answered."""

    real = Dispatcher.worker_gone

    def worker_gone(dispatcher: Dispatcher, worker: int, *, dead: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatcher, "_drain", lambda: None)
            real(dispatcher, worker, dead=dead)

    return Dispatcher, "worker_gone", worker_gone


def leaked_block() -> Replacement:
    """The block of a request whose client left is not given back."""
    real: Callable[[Dispatcher, Call], None] = Dispatcher._finish

    def finish(dispatcher: Dispatcher, call: Call) -> None:
        if call.future is not None:
            real(dispatcher, call)
            return
        arena = dispatcher._pools[call.lane.pool].arena
        real(dispatcher, call)
        arena.allocate(call.block.size_bytes)

    return Dispatcher, "_finish", finish


@pytest.mark.parametrize(
    ("plant", "says", "first"),
    [
        (lost_ticket, "not within bounds: every request ended", 0),
        # Its block is used again before the second run, so that the first to be seen may be any of these. It takes
        # a death between an answer and the end of its claim: half a minute of schedules go by before one has that.
        (double_answer, "was completed twice|the engine failed|not its own answer|answered by", 1050),
        (leaked_block, "request blocks", 0),
    ],
)
def test_a_planted_bug_is_found_and_its_schedule_shrunk(
    plant: Callable[[], Replacement], says: str, first: int
) -> None:
    mutations = [plant()]
    seeds = iter(range(first, first + SEEDS))
    for _ in range(FOUND_MAX):
        # What takes a whole crowd to show needs more tries to shrink than there are.
        found = search(seeds, mutations, parts_max=30)
        assert found is not None, "nothing was found"
        assert re.search(says, found.violation)
        small = shrink(found, mutations)
        assert small.violation
        assert len(small.schedule.parts) <= len(found.schedule.parts)
        assert play(small.schedule).violation == "", "the bug is not the planted one"
        if len(small.schedule.parts) <= SMALL_PARTS:
            return
    pytest.fail(f"none of the first {FOUND_MAX} schedules that were found shrinks to {SMALL_PARTS} parts")
