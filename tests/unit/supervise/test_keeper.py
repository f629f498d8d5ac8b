"""What the keeper has done when the repository changes, by actions that are not real."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.repository.watch import Sight, look
from predictd.server.supervise import keeper as keeping
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.keeper import Keeper
from tests.fixtures import models
from tests.fixtures.supervision import lane_config


class Lanes:
    """Does what the keeper asks for in a catalog, and notes it.

    Attributes:
        done: What was asked for, in order.
    """

    def __init__(self) -> None:
        self.catalog = Catalog([])
        self.done: list[str] = []
        self._numbers = itertools.count(1)

    def take_labels(self, sight: Sight) -> None:
        """Labels are the director's; its own tests look at them."""

    def start_lane(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        self.done.append(f"start {model.name} {version.version}")
        self.add(model.name, version.version, fingerprint)

    def add(self, model: str, version: int, fingerprint: str) -> LaneRecord:
        config = lane_config(next(self._numbers), model, version)
        record = LaneRecord(config, pool=1, instances=1, fingerprint=fingerprint)
        self.catalog.add(record)
        return record

    def retire_lane(self, lane: int) -> None:
        record = self.catalog.record(lane)
        self.done.append(f"retire {record.config.model} {record.config.version}")
        record.state = "UNLOADING"

    def drop_lane(self, lane: int) -> None:
        record = self.catalog.record(lane)
        self.done.append(f"drop {record.config.model} {record.config.version}")
        self.catalog.remove(lane)

    def loads_end(self, *failing: str) -> None:
        for record in self.catalog.records():
            if record.state == "LOADING":
                record.state = "FAILED" if record.config.model in failing else "READY"


class House:
    """A repository, its keeper, and lanes that are ready at the start."""

    def __init__(self, root: Path, polls: bool) -> None:
        self.root = root
        self.lanes = Lanes()
        first = look([root])
        for (model, version), sighting in first.versions.items():
            self.lanes.add(model, version, sighting.fingerprint)
        self.lanes.loads_end()
        self.looks = 0
        self.keeper = Keeper([root], first, self.lanes.catalog, self.lanes, polls=polls)

    def push(self, model: str, version: int, scale: float = 2.0) -> Path:
        path = self.root / model / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        models.affine(path, scale)
        os.utime(path, (scale, scale))
        return path

    async def look(self, times: int = 1) -> None:
        """Wait for so many more looks, and what is decided after them."""
        wanted = self.looks + times
        async with asyncio.timeout(20):
            while self.looks < wanted:  # noqa: ASYNC110 - the next look is later than the next turn of this
                await asyncio.sleep(0.001)

    def done(self) -> list[str]:
        done, self.lanes.done = self.lanes.done, []
        return done


Scenario = Callable[[House], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plays a scenario with a keeper that polls fast; the repository has version 1 of `m`."""
    monkeypatch.setattr(keeping, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(keeping, "LOOK_AGAIN_SECONDS", 0.02)
    root = tmp_path / "models"
    (root / "m" / "1").mkdir(parents=True)
    models.affine(root / "m" / "1" / "model.onnx")

    def run(scenario: Scenario, *, polls: bool = True) -> None:
        async def whole() -> None:
            house = House(root, polls)
            look_at_all = house.keeper.look_at_all

            async def looking() -> bool:
                held = await look_at_all()
                house.looks += 1
                return held

            monkeypatch.setattr(house.keeper, "look_at_all", looking)
            task = asyncio.ensure_future(house.keeper.run())
            try:
                await scenario(house)
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(whole())

    return run


def test_nothing_is_done_while_nothing_changes(play: Callable[..., None]) -> None:
    async def scenario(house: House) -> None:
        await house.look(3)
        assert house.done() == []

    play(scenario)


def test_a_new_version_is_started_and_the_old_one_retired_once_it_is_ready(play: Callable[..., None]) -> None:
    async def scenario(house: House) -> None:
        house.push("m", 2)
        await house.look(3)
        assert house.done() == ["start m 2"]
        await house.look(2)
        assert house.done() == []
        house.lanes.loads_end()
        house.keeper.reconcile()
        assert house.done() == ["retire m 1"]

    play(scenario)


def test_a_load_that_fails_leaves_the_old_one_and_is_not_tried_again_before_it_changes(
    play: Callable[..., None],
) -> None:
    async def scenario(house: House) -> None:
        house.push("m", 2)
        await house.look(3)
        house.lanes.loads_end("m")
        await house.look(3)
        assert house.done() == ["start m 2"]
        house.push("m", 2, scale=9.0)
        await house.look(3)
        assert house.done() == ["drop m 2", "start m 2"]

    play(scenario)


def test_a_version_that_goes_while_it_loads_is_given_up(play: Callable[..., None]) -> None:
    async def scenario(house: House) -> None:
        path = house.push("m", 2)
        await house.look(3)
        shutil.rmtree(path.parent)
        await house.look(2)
        assert house.done() == ["start m 2", "drop m 2"]

    play(scenario)


def test_models_come_and_go(play: Callable[..., None]) -> None:
    async def scenario(house: House) -> None:
        house.push("n", 4)
        await house.look(3)
        assert house.done() == ["start n 4"]
        assert [model.name for model in house.keeper.models] == ["m", "n"]
        shutil.rmtree(house.root / "m")
        await house.look(2)
        assert house.done() == ["retire m 1"]

    play(scenario)


def test_a_model_with_a_wrong_configuration_serves_on_and_that_is_said_once(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(house: House) -> None:
        def said() -> list[str]:
            return [record.message for record in caplog.records if "max_batch_sise" in record.message]

        wrong = house.root / "m" / "model.toml"
        wrong.write_text("max_batch_sise = 3\n")
        await house.look(4)
        assert (house.done(), len(said())) == ([], 1)
        wrong.unlink()
        await house.look(2)
        wrong.write_text("max_batch_sise = 3\n")
        await house.look(3)
        assert (house.done(), len(said())) == ([], 2)

    with caplog.at_level(logging.WARNING):
        play(scenario)


def test_what_is_cut_short_is_not_started_and_that_is_said_once(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(house: House) -> None:
        path = house.push("m", 2)
        path.write_bytes(path.read_bytes()[:-1])
        os.utime(path, (1, 1))
        await house.look(4)
        assert house.done() == []
        (line,) = [record.message for record in caplog.records if "cut short" in record.message]
        assert line.startswith(f"version 2 of m is not loaded: {path}: ")

    with caplog.at_level(logging.WARNING):
        play(scenario)


def test_without_polling_it_looks_when_asked_and_takes_what_is_settled(play: Callable[..., None]) -> None:
    async def scenario(house: House) -> None:
        house.push("m", 2)
        await asyncio.sleep(0.1)
        assert (house.looks, house.done()) == (0, [])
        house.keeper.look_now()
        # Seen twice without a change, and then there is nothing more to look at.
        await house.look()
        assert house.keeper.looking
        await house.look()
        assert (house.looks, house.done()) == (2, ["start m 2"])
        assert not house.keeper.looking
        house.keeper.look_now()
        await house.look()
        assert (house.looks, house.done()) == (3, [])

    play(scenario, polls=False)


def test_what_is_still_written_when_it_is_asked_to_look_is_taken_once_it_is_at_rest(
    play: Callable[..., None],
) -> None:
    async def scenario(house: House) -> None:
        settled, written = house.push("n", 1), house.push("m", 2)
        os.utime(written)
        house.keeper.look_now()
        for _ in range(4):
            os.utime(written)
            await house.look()
        assert house.done() == ["start n 1"]
        os.utime(written, settled.stat()[7:9])
        async with asyncio.timeout(20):
            while "start m 2" not in house.lanes.done:  # noqa: ASYNC110 - looks happen in a thread
                await asyncio.sleep(0.001)

    play(scenario, polls=False)


def test_a_served_version_that_cannot_be_read_any_more_serves_on(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(house: House) -> None:
        path = house.push("m", 2)
        await house.look(3)
        house.lanes.loads_end()
        house.keeper.reconcile()
        assert house.done() == ["start m 2", "retire m 1"]
        aside = path.rename(house.root.parent / "aside.onnx")
        path.symlink_to("nowhere.onnx")
        await house.look(4)
        assert house.done() == []
        path.unlink()
        aside.rename(path)
        await house.look(4)
        assert house.done() == []
        # What never was served is not waited for.
        (house.root / "m" / "3").mkdir()
        (house.root / "m" / "3" / "model.onnx").symlink_to("nowhere.onnx")
        await house.look(3)
        assert house.done() == []

    caplog.set_level(logging.WARNING)
    play(scenario)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition("models/")[2].partition(": ")[::2] for line in lines] == [
        (f"m/{version}/model.onnx", "a link to nothing: repair or remove it") for version in (2, 3)
    ]


def test_actions_that_bring_the_keeper_back_to_itself_are_done_once(play: Callable[..., None]) -> None:
    """The supervisor reconciles whenever something is published, which every action does."""

    async def scenario(house: House) -> None:
        start = house.lanes.start_lane

        def start_and_return(model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
            start(model, version, fingerprint)
            house.keeper.reconcile()

        house.lanes.start_lane = start_and_return  # type: ignore[method-assign]
        house.push("m", 2)
        house.push("n", 1)
        await house.look(3)
        assert house.done() == ["start m 2", "start n 1"]

    play(scenario)
