"""A lane that goes, in the whole supervisor, and what is left of it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from predictd.server.control.messages import Ack, RemoveLane, RetireLane
from predictd.server.control.publication import PublishModel
from predictd.server.supervise import housing, pool
from predictd.server.supervise.counts import ANSWER_SECONDS
from predictd.server.supervise.pool import Pool
from predictd.server.transport.pipes import Pipe, make_pipe
from tests.fixtures.keeping import House, play_house, turns
from tests.fixtures.supervision import FakeChild, Nursery, found


def house(nursery: Nursery, scenario: Callable[[House], Coroutine[Any, Any, None]], models: int = 1) -> None:
    async def served(one: House) -> None:
        one.serve(one.worker, *range(1, models + 1))
        one.listen(one.frontend)
        await scenario(one)
        assert one.supervisor.fatal is None

    play_house(nursery, served, models=models)


def retirement(frontend: FakeChild) -> RetireLane:
    (message,) = frontend.got(RetireLane)
    return message


def retire(one: House) -> None:
    """The first model is gone from the disk."""
    del one.supervisor.keeper._wanted["m1"]
    one.supervisor.keeper.reconcile()


async def ended(one: House) -> None:
    """Wait for the end of the first model's lane, which follows a last look at what was counted."""
    async with asyncio.timeout(10):
        while one.supervisor.catalog.find(1) is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def test_a_lane_is_ended_when_the_front_ends_are_through_with_it(nursery: Nursery) -> None:
    async def scenario(one: House) -> None:
        retire(one)
        assert [view.state for view in one.frontend.got(PublishModel)[-1].versions] == ["UNLOADING"]
        assert one.worker.got(RemoveLane) == []
        one.frontend.says(Ack(seq=retirement(one.frontend).seq))
        await ended(one)
        assert one.worker.got(RemoveLane) == [RemoveLane(lane=1)]
        assert one.frontend.got(PublishModel)[-1].versions == []

    house(nursery, scenario, models=2)


def test_a_front_end_that_dies_is_not_waited_for(nursery: Nursery) -> None:
    async def scenario(one: House) -> None:
        retire(one)
        await one.die(one.frontend)
        await ended(one)
        assert one.worker.got(RemoveLane) == [RemoveLane(lane=1)]

    house(nursery, scenario, models=2)


def test_a_lane_that_ended_otherwise_is_not_ended_twice(nursery: Nursery) -> None:
    async def scenario(one: House) -> None:
        retire(one)
        one.frontend.says(Ack(seq=retirement(one.frontend).seq))
        await turns()
        one.supervisor._lanes.drop_lane(1)
        # As long as the end that is under way waits for counts.
        await asyncio.sleep(ANSWER_SECONDS + 0.1)
        assert one.supervisor.fatal is None
        assert one.worker.got(RemoveLane) == [RemoveLane(lane=1)]

    house(nursery, scenario, models=2)


# What is left of a lane -----------------------------------------------------------------------------------------


def told(child: FakeChild, model: str) -> list[list[tuple[int, str]]]:
    """What a front end was told of a model's versions, in order."""
    published = [message for message in child.got(PublishModel) if message.name == model]
    return [[(view.version, view.state) for view in message.versions] for message in published]


def test_a_lane_is_known_until_its_workers_are_gone(nursery: Nursery) -> None:
    async def scenario(one: House) -> None:
        worker = one.worker
        one.supervisor.keeper._wanted.clear()
        one.supervisor._lanes.drop_lane(1)
        assert one.supervisor.has_lane(1)
        assert told(one.frontend, "m1")[-1] == [(1, "UNLOADING")]
        worker.exits(0)
        assert not one.supervisor.has_lane(1)
        assert told(one.frontend, "m1")[-1] == []

    house(nursery, scenario)


def test_a_lane_for_which_no_pool_can_be_made_fails_alone(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(one: House) -> None:
        model = found("late")

        def exhausted(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr(housing, "Pool", exhausted)
            one.supervisor._lanes.start_lane(model, model.versions[0], "a1")
        # Nobody wants it but this test, so it is forgotten as soon as it has failed.
        first = next(message for message in one.frontend.got(PublishModel) if message.name == "late")
        assert [(view.state, view.reason) for view in first.versions] == [
            ("FAILED", "pool late cannot be made: too many open files")
        ]
        assert one.supervisor.ready

    house(nursery, scenario)


def test_a_pool_that_cannot_be_made_leaves_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Pipe] = []

    def few(*_: int) -> Pipe:
        if len(made) == 4:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(make_pipe())
        return made[-1]

    monkeypatch.setattr(pool, "make_pipe", few)
    with pytest.raises(OSError, match="Too many open files"):
        Pool(1, "p", (), 64)
    for pipe in made:
        for fd in (pipe.read_fd, pipe.write_fd):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
