"""Commands against a keeper that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any

import pytest

from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import ModelConfig
from predictd.server.control.commands import (
    Command,
    CommandDone,
    ListedModel,
    LoadModel,
    Reload,
    ServeList,
    UnloadModel,
)
from predictd.server.control.message import Message
from predictd.server.errors import FailedPreconditionError, RequestError, UnknownModelError
from predictd.server.observe.gauges import LaneState
from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.commands import Commands
from predictd.server.supervise.loads import LoadJournal


def record(lane: int, model: str, state: LaneState = "LOADING", reason: str = "") -> LaneRecord:
    config = LaneConfig(
        lane=lane,
        model=model,
        version=1,
        path="/models/m.onnx",
        engine="onnxruntime",
        max_batch_size=8,
        max_delay_ns=0,
        max_queue_size=64,
        max_request_rows=64,
        run_timeout_ns=60 * 10**9,
        threads=1,
        parameters={},
    )
    return LaneRecord(config, 1, 1, state, reason)


class FakeKeeper:
    """Wants what it is told to; its lanes are what the test says."""

    def __init__(self, *, explicit: bool, lanes: Mapping[str, LaneRecord | None]) -> None:
        self.explicit = explicit
        self.lanes = dict(lanes)
        self.on_disk: set[str] = set()
        self.taken: list[tuple[dict[str, ModelConfig], dict[str, str]]] = []
        self.left: list[list[str]] = []
        self.looks = 0
        self.broken: list[str] = []
        self.refusal: Exception | None = None

    @property
    def names(self) -> set[str]:
        return set(self.lanes)

    async def take(
        self, overrides: Mapping[str, ModelConfig], base_paths: Mapping[str, str] | None = None
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken.append((dict(overrides), dict(base_paths or {})))

    async def leave(self, names: Collection[str]) -> set[int]:
        self.left.append(list(names))
        gone = [self.lanes.pop(name) for name in names if name in self.lanes]
        return {lane.config.lane for lane in gone if lane is not None}

    async def look_until_settled(self) -> list[str]:
        self.looks += 1
        return self.broken

    async def is_there(self, name: str) -> bool:
        return name in self.on_disk

    def wanted_lanes(self, name: str) -> list[LaneRecord | None]:
        return [self.lanes[name]] if name in self.lanes else []


class Journal(LoadJournal):
    """Notes what it is to keep."""

    def __init__(self) -> None:
        super().__init__(None)
        self.kept: list[tuple[str, object]] = []

    # typing.override needs Python 3.12.
    async def loaded(self, configs: Mapping[str, str]) -> None:  # type: ignore[explicit-override]
        self.kept.append(("loaded", dict(configs)))

    # typing.override needs Python 3.12.
    async def unloaded(self, names: Iterable[str]) -> None:  # type: ignore[explicit-override]
        self.kept.append(("unloaded", sorted(names)))


class Desk:
    """Commands, what surrounds them, and their answers."""

    def __init__(self, *, explicit: bool = True, **lanes: LaneRecord | None) -> None:
        self.keeper = FakeKeeper(explicit=explicit, lanes=lanes)
        self.settled = True
        self.draining = False
        self.there: set[int] = set()
        self.answers: list[Message] = []
        self.told = 0
        self._changed = asyncio.Event()
        self.labelled: list[Mapping[str, Mapping[str, int]]] = []
        self.refusal: RequestError | None = None
        self.journal = Journal()
        self.commands = Commands(self.keeper, self, self._tell, self._label, self.journal)

    async def _tell(self) -> None:
        self.told += 1

    async def _label(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.labelled.append(labels)

    def has_lane(self, lane: int) -> bool:
        return lane in self.there

    async def wait(self, condition: Callable[[], bool], timeout_seconds: float | None = None) -> bool:
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
        return True

    def ask(self, command: Command) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.commands.answer(command, self.answers.append))

    async def change(self, **attributes: object) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)
        self._changed.set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def answer(self, command: Command) -> CommandDone:
        async with asyncio.timeout(10):
            await self.ask(command)
        (answer,) = self.answers
        assert isinstance(answer, CommandDone)
        return answer


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


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

    play(scenario)


def test_a_load_is_answered_as_soon_as_a_version_failed() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(1, "m", "FAILED", "no such operator"))
        assert await desk.answer(LoadModel(seq=7, model="m")) == CommandDone(
            seq=7, status="FAILED_PRECONDITION", message="version 1 of model 'm' failed: no such operator"
        )

    play(scenario)


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

    play(scenario)


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

    play(scenario)


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

    play(scenario)


def test_a_wrong_config_changes_nothing() -> None:
    async def scenario() -> None:
        desk = Desk(m=None)
        answer = await desk.answer(LoadModel(seq=1, model="m", config='{"backend": "x"}'))
        assert (answer.status, "'backend' cannot be overridden" in answer.message) == (
            "INVALID_ARGUMENT",
            True,
        )
        assert desk.keeper.taken == []

    play(scenario)


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

    play(scenario)


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

    play(scenario)


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

    play(scenario)


def test_unloading_what_is_on_disk_and_not_loaded_is_no_error() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.keeper.on_disk = {"m"}
        assert await desk.answer(UnloadModel(seq=1, model="m")) == CommandDone(seq=1)

    play(scenario)


def test_unloading_what_nobody_knows_is_not_found() -> None:
    async def scenario() -> None:
        answer = await Desk().answer(UnloadModel(seq=1, model="m"))
        assert (answer.status, answer.message) == ("NOT_FOUND", "there is no model 'm'")

    play(scenario)


def test_where_the_disk_decides_nothing_is_unloaded_by_command() -> None:
    async def scenario() -> None:
        desk = Desk(explicit=False, m=record(1, "m", "READY"))
        answer = await desk.answer(UnloadModel(seq=1, model="m"))
        assert answer.status == "UNAVAILABLE"
        assert "--model-control explicit" in answer.message
        assert desk.keeper.left == []

    play(scenario)


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

    play(scenario)


def test_a_reload_names_what_is_no_whole_model() -> None:
    async def scenario() -> None:
        desk = Desk(m=record(2, "m", "READY"))
        desk.keeper.broken = ["version 2 of m is not loaded: cut short"]
        answer = await desk.answer(Reload(seq=1))
        assert (answer.status, answer.message) == ("FAILED_PRECONDITION", desk.keeper.broken[0])

    play(scenario)


# A list of models -----------------------------------------------------------------------------------------------


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

    play(scenario)


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

    play(scenario)


def test_a_list_whose_labels_are_refused_unloads_nothing_and_is_not_kept() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a", "READY"), c=record(3, "c", "READY"))
        desk.refusal = FailedPreconditionError("not currently available for inference")
        answer = await desk.answer(listed("a"))
        assert (answer.status, desk.keeper.left, desk.journal.kept) == ("FAILED_PRECONDITION", [], [])

    play(scenario)


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

    play(scenario)


def test_a_list_of_which_something_fails_unloads_nothing() -> None:
    async def scenario() -> None:
        desk = Desk(a=record(1, "a", "FAILED", "why"), c=record(3, "c", "READY"))
        answer = await desk.answer(listed("a"))
        assert (answer.status, desk.keeper.left) == ("FAILED_PRECONDITION", [])

    play(scenario)


def test_a_list_with_a_model_that_is_not_there_is_an_invalid_argument() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.keeper.refusal = UnknownModelError("why")
        assert (await desk.answer(listed("a"))).status == "INVALID_ARGUMENT"

    play(scenario)


def test_a_list_names_each_model_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        answer = await desk.answer(listed("a", "a"))
        assert (answer.status, answer.message) == ("INVALID_ARGUMENT", "the list has a model twice")

    play(scenario)


def test_where_the_disk_decides_a_list_must_have_all_models() -> None:
    async def scenario() -> None:
        desk = Desk(explicit=False, a=record(1, "a", "READY"), c=record(3, "c", "READY"))
        answer = await desk.answer(listed("a"))
        assert (answer.status, "'c', which is not in the list" in answer.message) == ("UNAVAILABLE", True)
        desk.answers.clear()
        assert await desk.answer(listed("a", "c")) == CommandDone(seq=1)

    play(scenario)
