"""Tickets of a front end that is broken: they fail, and the worker and everybody else's requests do not."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np
import pytest

from predictd.server.transport.records import NO_DEADLINE_NS, NO_SEGMENT, TICKET, Status, TicketFlag
from tests.unit.worker.harness import FakeFrontend, Sent, running
from tests.unit.worker.lanes import doubling_lane, engine_of
from tests.unit.worker.tensors import rows_of

Forge = Callable[[bytearray], None]


def field(name: str, value: int) -> Forge:
    """Overwrite one field of a ticket."""

    def forge(ticket: bytearray) -> None:
        np.frombuffer(ticket, TICKET)[name] = value

    return forge


# What no front end in its right mind writes.
FORGERIES: dict[str, Forge] = {
    "a block behind the last": field("block", 64),
    "a negative block": field("block", 2**32 - 1),
    "a segment that is not there": field("segment", 9),
    "no segment and no probe": field("segment", NO_SEGMENT),
    "more bytes than the block has": field("bytes", 2**31),
    "fewer bytes than the request has": field("bytes", 1),
    "rows beyond all bounds": field("rows", 2**32 - 1),
    "no rows": field("rows", 0),
    "strings that are none": field("flags", int(TicketFlag.VARYING)),
    "another block": field("block", 7),
}


def forged(frontend: FakeFrontend, sent: Sent, forge: Forge) -> Sent:
    ticket = bytearray(sent.ticket)
    forge(ticket)
    sent.ticket = ticket
    return frontend.send(sent)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_ticket_costs_nobody_else_an_answer(forge: Forge) -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        broken, sound = worker.frontend(1), worker.frontend(2)
        before = sound.ask(lane, rows_of(1))
        bad = forged(broken, broken.request(lane, rows_of(2)), forge)
        same = broken.ask(lane, rows_of(3))
        after = sound.ask(lane, rows_of(4))
        worker.serve()
        assert worker.waiting == 0
        answers = {answer.slot: answer for answer in sound.answers()}
        for sent, number in ((before, 1), (after, 4)):
            assert answers[sent.slot].status is Status.OK
            np.testing.assert_array_equal(answers[sent.slot].outputs[0], 2 * rows_of(number))
        own = {answer.slot: answer for answer in broken.answers()}
        assert own.keys() == {bad.slot, same.slot}
        assert own[same.slot].status is Status.OK
        # The block of another request, or a flag that changes nothing about dense tensors, does no harm.
        assert own[bad.slot].status in {Status.ENGINE_FAILED, Status.OK, Status.NO_MEMORY}


@pytest.mark.parametrize(
    "name", ["a block behind the last", "a segment that is not there", "no segment and no probe"]
)
def test_a_ticket_for_memory_that_is_not_there_never_comes_to_a_run(name: str) -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        bad = forged(frontend, frontend.request(lane, rows_of(1)), FORGERIES[name])
        assert worker.take() is None
        (answer,) = frontend.answers()
        assert (answer.slot, answer.status) == (bad.slot, Status.ENGINE_FAILED)
        assert not engine_of(lane).runs


def test_a_ticket_cannot_have_a_larger_request_read_out_of_smaller_blocks() -> None:
    """Its shape is known already from blocks that were large enough."""
    wide = doubling_lane(width=1000)
    narrow = doubling_lane(2, width=3)
    with running(wide, narrow) as worker:
        frontend = worker.frontend()
        sound = frontend.ask(wide, np.ones((1, 1000), np.float32))
        small = frontend.request(narrow, rows_of(1), new_segment=True)
        large = bytearray(sound.ticket)
        for name in ("segment", "block"):
            field(name, int(np.frombuffer(small.ticket, TICKET)[name][0]))(large)
        struct.pack_into("<I", large, 32, small.slot)
        struct.pack_into("<I", large, 36, small.generation)
        small.ticket = large
        frontend.send(small)
        worker.serve()
        found = {answer.slot: answer.status for answer in frontend.answers()}
        assert found == {sound.slot: Status.OK, small.slot: Status.ENGINE_FAILED}


@pytest.mark.parametrize("enqueued_ns", [-(2**63), -1, 2**62, 2**63 - 1])
@pytest.mark.parametrize("deadline_ns", [-(2**63), 0, NO_DEADLINE_NS])
def test_times_that_cannot_be_hold_nobody_up(enqueued_ns: int, deadline_ns: int) -> None:
    lane = doubling_lane(max_delay_ns=10**6)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1), enqueued_ns=enqueued_ns, deadline_ns=deadline_ns)
        until = time.monotonic() + 30
        while worker.waiting:
            assert time.monotonic() < until
            worker.take()
        assert worker.waiting == 0


def test_releases_of_what_was_never_given_are_ignored() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1))
        worker.serve()
        (completion,) = frontend.completions()
        fake = completion.copy()
        for name, value in (("block", 2**32 - 1), ("segment", 77), ("block", int(completion["block"]) + 1)):
            fake[name] = value
            frontend.release(fake, 2**32 - 1)
        worker.responses.collect_releases()
        assert len(worker.responses._held) == 1
        frontend.release(completion, 2**32 - 1)
        worker.responses.collect_releases()
        assert not worker.responses._held
