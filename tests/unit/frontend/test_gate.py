"""What is refused before it is received or parsed, and what is not."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.errors import OverloadedError
from predictd.server.frontend import gate as gate_module
from predictd.server.frontend.clients import ClientLimit, _client
from predictd.server.frontend.gate import REFUSED_FOR_ONE_SEEN, Gate
from predictd.server.frontend.heading import Heading, from_metadata
from predictd.server.frontend.routing import Lane, Routes
from tests.fixtures.frontend import SECRET, config, publication, view
from tests.fixtures.scripted_workers import Rig, play, sent, settle, start
from tests.unit.frontend.test_shedding import MS, busy

UNKNOWN = Heading("", priority=None)
NAMED = Heading("m", priority=0)


def routed(rig: Rig, *models: str, **changes: object) -> tuple[Gate, dict[str, Lane]]:
    """A gate, and the lanes of some models, each in a pool of its own."""
    routes, lanes = Routes(SECRET), {}
    for pool, model in enumerate(models, 1):
        routes.publish(
            publication(view(pool=pool, config=config(10 * pool + 1, model=model, **changes)), name=model)
        )
        lanes[model] = routes.lane(model, None, None)
    return Gate(routes, rig.dispatcher, rig.recorder, ClientLimit(0)), lanes


@asynccontextmanager
async def crowded(rig: Rig) -> AsyncIterator[Gate]:
    """The gate of a model for which as many wait as cannot be answered soon."""
    pool, worker = start(rig)
    gate, lanes = routed(rig, "m")
    slow = busy(lanes["m"], each_ns=1000 * MS)
    for _ in range(2):
        await sent(rig, 1, 2, to=slow)
    yield gate
    worker.answer(pool.read())
    await settle(rig)


def soon() -> int:
    return time.monotonic_ns() + 1000 * MS


def refused(gate: Gate, heading: Heading, deadline_ns: int | None = None, *, parsed: bool = False) -> bool:
    look = gate.check_unparsed if parsed else gate.check_unread
    try:
        look(heading, "api", soon() if deadline_ns is None else deadline_ns)
    except OverloadedError:
        return True
    return False


def test_who_cannot_be_answered_in_time_is_refused_at_the_headers_and_counted() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        gate, lanes = routed(rig, "m")
        slow = busy(lanes["m"], each_ns=1000 * MS)
        assert not refused(gate, NAMED), "nobody waits"
        waiting = [await sent(rig, 1, 2, to=slow) for _ in range(2)]
        assert not gate.pressed
        assert refused(gate, NAMED)
        assert gate.pressed
        assert refused(gate, UNKNOWN)
        assert refused(gate, NAMED, parsed=True)
        assert not refused(gate, NAMED, soon() + 3600_000 * MS), "it has the time"
        assert not refused(gate, NAMED, 0), "it has all the time"
        assert not refused(gate, Heading("other")), "it will be told that there is no such model"
        assert not refused(gate, Heading("other"), parsed=True)
        delta = rig.recorder.take()
        assert [(one.lane, one.requests) for one in delta.accepted] == [(11, 3)]
        assert [(one.lane, one.status, one.requests) for one in delta.requests] == [
            (11, "RESOURCE_EXHAUSTED", 3)
        ]
        assert [(one.reason, one.requests) for one in delta.shed] == [("expected_wait", 3)]
        worker.answer(pool.read())
        await settle(rig)
        assert not refused(gate, NAMED)
        assert all(task.exception() is None for task in waiting)

    play(scenario)


def test_nothing_keeps_a_refusal_alive() -> None:
    """It knows the frames that it passed, and with them the request."""

    async def scenario(rig: Rig) -> None:
        async with crowded(rig) as gate:
            refusal: weakref.ref[OverloadedError] | None = None
            gc.disable()
            try:
                gate.check_unread(NAMED, "api", soon())
            except OverloadedError as error:
                refusal = weakref.ref(error)
            finally:
                gc.enable()
            assert refusal is not None
            assert refusal() is None

    play(scenario)


def test_a_full_queue_refuses_by_number_and_by_bytes() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        rules = QueueRules(max_queue_size=2, max_queue_bytes=1000)
        gate, lanes = routed(rig, "m", priority_levels=1, default_priority=1, queues=(rules,))
        assert refused(gate, Heading("m", size_bytes=1001), 0)
        assert not refused(gate, Heading("m", size_bytes=100), 0)
        for _ in range(2):
            await sent(rig, 1, 2, to=lanes["m"])
        assert refused(gate, Heading("m", size_bytes=100), 0)
        assert {one.reason for one in rig.recorder.take().shed} == {"queue_size", "queue_bytes"}
        worker.answer(pool.read())
        await settle(rig)

    play(scenario)


def test_a_model_that_has_time_is_not_refused_for_another_that_has_none() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        rig.add_pool(2)
        gate, lanes = routed(rig, "m", "idle")
        slow = busy(lanes["m"], each_ns=1000 * MS)
        busy(lanes["idle"], each_ns=1000 * MS)
        for _ in range(2):
            await sent(rig, 1, 2, to=slow)
        assert refused(gate, NAMED)
        assert not refused(gate, Heading("idle", priority=0))
        assert not refused(gate, UNKNOWN), "it may be for the idle one"
        worker.answer(pool.read())
        await settle(rig)

    play(scenario)


def test_where_every_model_is_full_nobody_is_asked_for_which() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        gate, lanes = routed(rig, *(f"m{number}" for number in range(gate_module.LANES_ASKED_MAX)))
        for one in lanes.values():
            busy(one, each_ns=1000 * MS)
            one.pool = 1
        for _ in range(2):
            await sent(rig, 1, 2, to=lanes["m0"])
        assert refused(gate, UNKNOWN)
        delta = rig.recorder.take()
        assert [(one.lane, one.status) for one in delta.requests] == [(None, "RESOURCE_EXHAUSTED")]
        assert not delta.shed
        worker.answer(pool.read())
        await settle(rig)

    play(scenario)


def test_a_priority_that_was_asked_for_lately_keeps_the_gate_open() -> None:
    async def scenario(rig: Rig) -> None:
        async with crowded(rig) as gate:
            assert refused(gate, UNKNOWN)
            assert not refused(gate, Heading("m", priority=1)), "it would be served first"
            assert refused(gate, UNKNOWN)
            assert not refused(gate, Heading("m", priority=1), parsed=True)
            assert not refused(gate, UNKNOWN)
            assert refused(gate, NAMED), "it says that it is an ordinary one"

    play(scenario)


def test_now_and_then_one_that_says_nothing_of_itself_is_looked_at() -> None:
    async def scenario(rig: Rig) -> None:
        async with crowded(rig) as gate:
            rounds = 2 * (REFUSED_FOR_ONE_SEEN + 1)
            assert [refused(gate, UNKNOWN) for _ in range(rounds)].count(False) == 2
            assert all(refused(gate, NAMED) for _ in range(rounds))

    play(scenario)


def test_a_client_with_as_many_requests_as_it_may_have_is_refused_at_the_headers() -> None:
    async def scenario(rig: Rig) -> None:
        start(rig)
        gate, _ = routed(rig, "m")
        limited = Gate(gate._routes, rig.dispatcher, rig.recorder, limit := ClientLimit(1))
        assert limited.pressed
        _client.set("a")
        assert not refused(limited, UNKNOWN)
        with limit.request():
            assert refused(limited, UNKNOWN)
        assert [one.reason for one in rig.recorder.take().shed] == ["client_limit"]

    play(scenario)


@pytest.mark.parametrize(
    ("metadata", "heading"),
    [
        (None, UNKNOWN),
        ((("user-agent", "x"), ("predictd-model-bin", b"m")), UNKNOWN),
        ((("predictd-model", "m"),), NAMED),
        ((("predictd-model", "m"), ("predictd-priority", "3")), Heading("m", priority=3)),
        ((("predictd-priority", "3"), ("predictd-model", "m")), Heading("m", priority=3)),
        ((("predictd-model", "m"), ("predictd-priority", "soon")), Heading("m", priority=None)),
        ((("predictd-model", "m"), ("predictd-priority", "9" * 5000)), Heading("m", priority=None)),
    ],
)
def test_metadata_may_say_what_a_request_is_for(
    metadata: tuple[tuple[str, str | bytes], ...] | None, heading: Heading
) -> None:
    assert from_metadata(metadata) == heading
