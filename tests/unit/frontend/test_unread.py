"""What clients have not read is bounded: the next requests of a connection wait, those of others do not."""

from __future__ import annotations

import asyncio

from predictd.server.frontend.unread import COUNTED_BYTES, Turn, Unread

LIMIT = 10 * COUNTED_BYTES


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
