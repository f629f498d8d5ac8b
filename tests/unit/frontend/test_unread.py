"""What clients have not read is bounded: the next requests of a connection wait, those of others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from predictd.server.frontend.unread import COUNTED_BYTES, Bounded, Turn, Unread

LIMIT = 10 * COUNTED_BYTES
SERVICE = "predictd.v1.PredictionService"


async def turn_of(unread: Unread, peer: str = "a") -> asyncio.Task[Turn]:
    """A request, which has its turn or waits for it."""
    task = asyncio.create_task(unread.turn(peer))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def test_small_answers_are_not_counted() -> None:
    unread = Unread(LIMIT)
    unread.expect(COUNTED_BYTES - 1)
    assert not unread.counts
    unread.expect(COUNTED_BYTES)
    assert unread.counts


def test_the_size_of_answers_is_forgotten_with_smaller_ones() -> None:
    unread = Unread(LIMIT)
    unread.expect(4 * COUNTED_BYTES)
    for _ in range(60):
        unread.expect(10)
    assert unread.counts
    for _ in range(60):
        unread.expect(10)
    assert not unread.counts


def test_a_connection_with_too_much_unread_waits_in_order_and_others_do_not() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        unread.expect(4 * COUNTED_BYTES)
        first, second, third, fourth = [await turn_of(unread) for _ in range(4)]
        assert [task.done() for task in (first, second, third, fourth)] == [True, True, False, False]
        other = await turn_of(unread, "b")
        assert other.done()
        first.result().answered(COUNTED_BYTES)
        await asyncio.sleep(0)
        assert not third.done(), "what was read makes room, not what was answered"
        first.result().done()
        await asyncio.sleep(0)
        assert (third.done(), fourth.done()) == (True, False)
        second.result().done()
        await asyncio.sleep(0)
        assert fourth.done()
        for task in (third, fourth, other):
            task.result().done()
        assert unread.total_bytes == 0
        assert not unread._connections

    asyncio.run(scenario())


def test_an_answer_beyond_the_limit_goes_alone() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        unread.expect(3 * LIMIT)
        first, second = await turn_of(unread), await turn_of(unread)
        assert (first.done(), second.done()) == (True, False)
        first.result().answered(3 * LIMIT)
        first.result().done()
        await asyncio.sleep(0)
        assert second.done()
        second.result().done()
        assert not unread._connections

    asyncio.run(scenario())


def test_who_gives_up_waiting_lets_the_next_ones_by() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        held = unread.already_answered("a", LIMIT // 2)
        unread.expect(LIMIT)
        large = await turn_of(unread)
        unread._expected_bytes = COUNTED_BYTES
        small, late = await turn_of(unread), await turn_of(unread)
        assert not small.done()
        large.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert small.done()
        assert late.done()
        for task in (small, late):
            task.result().done()
        held.done()
        assert not unread._connections

    asyncio.run(scenario())


def test_who_gives_up_just_when_it_is_let_in_takes_no_room() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        held = unread.already_answered("a", LIMIT)
        waits = await turn_of(unread)
        held.done()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert waits.cancelled()
        assert unread.total_bytes == 0
        assert not unread._connections

    asyncio.run(scenario())


class Call:
    """A call's context: who asks, and what is to be done when the call has ended."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._ends: list[Callable[[Any], object]] = []

    def peer(self) -> str:
        return self._peer

    def add_done_callback(self, end: Callable[[Any], object]) -> None:
        self._ends.append(end)

    def end(self) -> None:
        """The client has read the answer, or has gone."""
        for end in self._ends:
            end(self)


class Details:
    """What gRPC asks a service with."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def method(unread: Unread, name: str, size_bytes: int) -> Callable[[Call], asyncio.Task[bytes]]:
    """A bounded service's method that answers with so many bytes, and fails without any."""

    async def answer(_: object, __: object) -> bytes:
        if not size_bytes:
            raise RuntimeError("no answer")
        return b"x" * size_bytes

    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(answer)}
    service = Bounded(grpc.method_handlers_generic_handler(SERVICE, handlers), unread)
    handler = service.service(Details(f"/{SERVICE}/{name}"))  # type: ignore[arg-type]
    assert service.service(Details(f"/{SERVICE}/Other")) is None  # type: ignore[arg-type]
    return lambda call: asyncio.create_task(handler.unary_unary(b"", call))


async def settled(task: asyncio.Task[bytes]) -> bool:
    """Whether a call is answered by now."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


def test_calls_of_one_answer_wait_for_what_their_connection_has_unread() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        ask = method(unread, "Predict", LIMIT // 2)
        calls = [Call("a") for _ in range(4)]
        # The first came while nobody knew how large answers are.
        tasks = []
        for call in calls:
            tasks.append(ask(call))
            await settled(tasks[-1])
        assert [task.done() for task in tasks] == [True, True, False, False]
        other = Call("b")
        assert await settled(ask(other))
        calls[0].end()
        assert await settled(tasks[2])
        assert not await settled(tasks[3])
        tasks[3].cancel()
        for call in (*calls[1:3], other):
            call.end()
        assert not unread._connections

    asyncio.run(scenario())


def test_other_methods_and_small_answers_do_not_wait() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        small, other = method(unread, "Predict", 10), method(unread, "ListModels", LIMIT)
        assert await settled(small(Call("a")))
        assert not unread._connections
        unread.already_answered("a", LIMIT)
        assert await settled(other(Call("a")))
        waits = small(Call("a"))
        assert not await settled(waits)
        waits.cancel()

    asyncio.run(scenario())


def test_a_call_that_fails_has_nothing_unread() -> None:
    async def scenario() -> None:
        unread = Unread(LIMIT)
        unread.expect(LIMIT)
        failed = method(unread, "Predict", 0)(call := Call("a"))
        assert await settled(failed)
        with pytest.raises(RuntimeError, match="no answer"):
            await failed
        call.end()
        assert not unread._connections

    asyncio.run(scenario())
