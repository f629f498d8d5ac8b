"""Commands, what surrounds them, and a keeper that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping

from predictd.server.config.model_config import ModelConfig
from predictd.server.control.commands import Command, CommandDone
from predictd.server.control.message import Message
from predictd.server.errors import RequestError
from predictd.server.observe.gauges import LaneState
from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.commands import Commands
from predictd.server.supervise.loads import LoadJournal
from tests.fixtures.supervision import lane_config


def record(lane: int, model: str, state: LaneState = "LOADING", reason: str = "") -> LaneRecord:
    return LaneRecord(lane_config(lane, model), 1, 1, state, reason)


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
