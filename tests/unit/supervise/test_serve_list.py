"""The command that names all models that are to be served."""

from __future__ import annotations

import asyncio

from predictd.server.config.model_config import ModelConfig
from predictd.server.control.commands import CommandDone, ListedModel, ServeList
from predictd.server.errors import FailedPreconditionError, UnknownModelError
from tests.unit.supervise.desk import Desk, record


def listed(*names: str) -> ServeList:
    return ServeList(seq=1, models=[ListedModel(name=name, base_path=f"/models/{name}") for name in names])


def test_what_is_not_in_the_list_goes_once_all_that_is_in_it_is_ready() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a", "READY"), b=record(2, "b"), c=record(3, "c", "READY"))
        task = desk.ask(listed("a", "b"))
        await desk.change()
        assert desk.keeper.taken == [
            ({"a": ModelConfig(), "b": ModelConfig()}, {"a": "/models/a", "b": "/models/b"})
        ]
        assert (desk.keeper.left, desk.answers) == ([], [])
        lane = desk.keeper.lanes["b"]
        assert lane is not None
        lane.state = "READY"
        await desk.change()
        await task
        assert (desk.keeper.left, desk.answers) == ([["c"]], [CommandDone(seq=1)])
        assert desk.journal.kept == [("loaded", {"a": "", "b": ""}), ("unloaded", ["c"])]

    asyncio.run(scenario())


def test_the_labels_of_a_list_are_given_once_its_models_are_ready() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a"), c=record(3, "c", "READY"))
        command = ServeList(seq=1, models=[ListedModel(name="a", base_path="", labels={"stable": 1})])
        task = desk.ask(command)
        await desk.change()
        assert desk.labelled == []
        lane = desk.keeper.lanes["a"]
        assert lane is not None
        lane.state = "READY"
        await desk.change()
        await task
        assert desk.labelled == [{"a": {"stable": 1}}]

    asyncio.run(scenario())


def test_a_list_whose_labels_are_refused_unloads_nothing_and_is_not_kept() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a", "READY"), c=record(3, "c", "READY"))
        desk.refusal = FailedPreconditionError("not currently available for inference")
        answer = await desk.answer(listed("a"))
        assert (answer.status, desk.keeper.left, desk.journal.kept) == ("FAILED_PRECONDITION", [], [])

    asyncio.run(scenario())


def test_a_list_of_which_something_fails_unloads_nothing() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a", "FAILED", "why"), c=record(3, "c", "READY"))
        answer = await desk.answer(listed("a"))
        assert (answer.status, desk.keeper.left) == ("FAILED_PRECONDITION", [])

    asyncio.run(scenario())


def test_a_list_with_a_model_that_is_not_there_is_an_invalid_argument() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.keeper.refusal = UnknownModelError("why")
        assert (await desk.answer(listed("a"))).status == "INVALID_ARGUMENT"

    asyncio.run(scenario())


def test_a_list_names_each_model_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        answer = await desk.answer(listed("a", "a"))
        assert (answer.status, answer.message) == ("INVALID_ARGUMENT", "the list has a model twice")

    asyncio.run(scenario())


def test_where_the_disk_decides_a_list_must_have_all_models() -> None:
    async def scenario() -> None:
        desk = Desk(explicit=False, a=record(1, "a", "READY"), c=record(3, "c", "READY"))
        answer = await desk.answer(listed("a"))
        assert (answer.status, "'c', which is not in the list" in answer.message) == ("UNAVAILABLE", True)
        desk.answers.clear()
        assert await desk.answer(listed("a", "c")) == CommandDone(seq=1)

    asyncio.run(scenario())
