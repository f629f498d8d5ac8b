"""Commands against a keeper that only remembers what it was asked."""

from __future__ import annotations

import asyncio

import pytest

from predictd.server.config.model_config import ModelConfig
from predictd.server.control.commands import CommandDone, LoadModel, Reload, UnloadModel
from predictd.server.errors import FailedPreconditionError, UnknownModelError
from tests.unit.supervise.desk import Desk, record

# Load -----------------------------------------------------------------------------------------------------------


def test_a_load_is_answered_once_the_model_is_ready_and_the_front_ends_know() -> None:
    async def scenario() -> None:
        desk = Desk(m=None)
        task = desk.ask(LoadModel(seq=7, model="m", config='{"max_batch_size": 2}'))
        await desk.change()
        assert desk.keeper.taken == [({"m": ModelConfig(max_batch_size=2)}, {})]
        lane = desk.keeper.lanes["m"] = record(1, "m")
        await desk.change()
        assert desk.answers == []
        lane.state = "READY"
        await desk.change()
        await task
        assert (desk.answers, desk.told) == ([CommandDone(seq=7)], 1)

    asyncio.run(scenario())


def test_a_load_is_answered_as_soon_as_a_version_failed() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m", "FAILED", "no such operator"))
        assert await desk.answer(LoadModel(seq=7, model="m")) == CommandDone(
            seq=7, status="FAILED_PRECONDITION", message="version 1 of model 'm' failed: no such operator"
        )

    asyncio.run(scenario())


def test_two_loads_of_one_model_end_together() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m"))
        tasks = [desk.ask(LoadModel(seq=seq, model="m")) for seq in (1, 2)]
        await desk.change()
        assert desk.answers == []
        lane = desk.keeper.lanes["m"]
        assert lane is not None
        lane.state = "READY"
        await desk.change()
        await asyncio.gather(*tasks)
        assert desk.answers == [CommandDone(seq=1), CommandDone(seq=2)]

    asyncio.run(scenario())


def test_an_unload_ends_the_load_that_it_overtakes() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m"))
        load = desk.ask(LoadModel(seq=1, model="m"))
        await desk.change()
        await desk.ask(UnloadModel(seq=2, model="m"))
        await desk.change()
        await load
        assert {answer.seq: answer.status for answer in desk.answers if isinstance(answer, CommandDone)} == {
            1: "UNAVAILABLE",
            2: "",
        }

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(UnknownModelError("why"), "NOT_FOUND"), (FailedPreconditionError("why"), "FAILED_PRECONDITION")],
)
def test_what_the_keeper_refuses_is_the_answer(refusal: Exception, status: str) -> None:
    async def scenario() -> None:
        desk = Desk(m=None)
        desk.keeper.refusal = refusal
        assert await desk.answer(LoadModel(seq=1, model="m")) == CommandDone(
            seq=1, status=status, message="why"
        )

    asyncio.run(scenario())


def test_a_wrong_config_changes_nothing() -> None:
    async def scenario() -> None:
        desk = Desk(m=None)
        answer = await desk.answer(LoadModel(seq=1, model="m", config='{"backend": "x"}'))
        assert (answer.status, "'backend' cannot be overridden" in answer.message) == (
            "INVALID_ARGUMENT",
            True,
        )
        assert desk.keeper.taken == []

    asyncio.run(scenario())


def test_commands_wait_until_everything_of_the_start_is_settled() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m", "READY"))
        desk.settled = False
        task = desk.ask(LoadModel(seq=1, model="m"))
        await desk.change()
        assert desk.keeper.taken == []
        await desk.change(settled=True)
        await task
        assert desk.answers == [CommandDone(seq=1)]

    asyncio.run(scenario())


def test_a_daemon_that_leaves_answers_whoever_waits() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m"))
        task = desk.ask(LoadModel(seq=1, model="m"))
        await desk.change()
        await desk.change(draining=True)
        await task
        assert desk.answers == [
            CommandDone(seq=1, status="UNAVAILABLE", message="the server is shutting down")
        ]

    asyncio.run(scenario())


# Unload ---------------------------------------------------------------------------------------------------------


def test_an_unload_is_answered_once_the_lanes_are_gone() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(5, "m", "READY"))
        desk.there = {5}
        task = desk.ask(UnloadModel(seq=1, model="m"))
        await desk.change()
        assert (desk.keeper.left, desk.answers) == ([["m"]], [])
        await desk.change(there=set())
        await task
        assert (desk.answers, desk.told) == ([CommandDone(seq=1)], 1)

    asyncio.run(scenario())


def test_unloading_what_is_on_disk_and_not_loaded_is_no_error() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.keeper.on_disk = {"m"}
        assert await desk.answer(UnloadModel(seq=1, model="m")) == CommandDone(seq=1)

    asyncio.run(scenario())


def test_unloading_what_nobody_knows_is_not_found() -> None:
    async def scenario() -> None:
        answer = await Desk().answer(UnloadModel(seq=1, model="m"))
        assert (answer.status, answer.message) == ("NOT_FOUND", "there is no model 'm'")

    asyncio.run(scenario())


def test_where_the_disk_decides_nothing_is_unloaded_by_command() -> None:
    async def scenario() -> None:
        desk = Desk(explicit=False, m=record(1, "m", "READY"))
        answer = await desk.answer(UnloadModel(seq=1, model="m"))
        assert answer.status == "UNAVAILABLE"
        assert "--model-control explicit" in answer.message
        assert desk.keeper.left == []

    asyncio.run(scenario())


# Reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_names_what_failed_in_it_and_not_what_had_failed_before() -> None:
    async def scenario() -> None:
        desk = Desk(old=record(1, "old", "FAILED", "long ago"), m=record(2, "m", "READY"))
        assert await desk.answer(Reload(seq=1)) == CommandDone(seq=1)
        assert desk.keeper.looks == 1
        lane = record(3, "m")
        look = desk.keeper.look_until_settled

        async def finds_new() -> list[str]:
            desk.keeper.lanes["m"] = lane
            return await look()

        desk.answers.clear()
        desk.keeper.look_until_settled = finds_new  # type: ignore[method-assign]
        task = desk.ask(Reload(seq=3))
        await desk.change()
        assert desk.answers == []
        lane.state, lane.reason = "FAILED", "just now"
        await desk.change()
        await task
        assert desk.answers == [
            CommandDone(
                seq=3, status="FAILED_PRECONDITION", message="version 1 of model 'm' failed: just now"
            )
        ]

    asyncio.run(scenario())


def test_a_reload_names_what_is_no_whole_model() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(2, "m", "READY"))
        desk.keeper.broken = ["version 2 of m is not loaded: cut short"]
        answer = await desk.answer(Reload(seq=1))
        assert (answer.status, answer.message) == ("FAILED_PRECONDITION", desk.keeper.broken[0])

    asyncio.run(scenario())


# What is kept ---------------------------------------------------------------------------------------------------


def test_what_is_loaded_and_unloaded_is_kept_where_commands_decide() -> None:
    async def scenario(*, explicit: bool) -> list[tuple[str, object]]:
        desk = Desk(explicit=explicit, m=record(1, "m", "READY"))
        config = '{"max_batch_size": 3}'
        assert await desk.answer(LoadModel(seq=1, model="m", config=config)) == CommandDone(seq=1)
        desk.answers.clear()
        await desk.answer(UnloadModel(seq=1, model="m"))
        return desk.journal.kept

    kept = [("loaded", {"m": '{"max_batch_size": 3}'}), ("unloaded", ["m"])]
    assert asyncio.run(scenario(explicit=True)) == kept
    assert asyncio.run(scenario(explicit=False)) == []


def test_a_load_that_fails_is_not_kept() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m", "FAILED", "why"))
        await desk.answer(LoadModel(seq=1, model="m"))
        assert desk.journal.kept == []

    asyncio.run(scenario())
