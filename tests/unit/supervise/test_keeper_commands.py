"""What the keeper wants after commands, on models that are really on disk."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any

import pytest

from predictd.server.config.model_config import Latest, ModelConfig, Specific
from predictd.server.errors import FailedPreconditionError, InvalidRequestError, UnknownModelError
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.repository.watch import Sight, look, only
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.keeper import Keeper
from tests.fixtures import models
from tests.fixtures.processes import versioned
from tests.fixtures.supervision import lane_config


class Lanes:
    """Carries the keeper's decisions out at once; what is started loads until the test says otherwise."""

    def __init__(self, paths: Path, chosen: Collection[str] | None, *, polls: bool = False) -> None:
        self.catalog = Catalog(())
        self.files: list[ModelConfig] = []
        self._ids = itertools.count(1)
        first = look([paths])
        first = first if chosen is None else only(first, chosen)
        self.keeper = Keeper([paths], first, self.catalog, self, polls=polls, chosen=chosen)
        self.keeper.reconcile()

    def take_labels(self, sight: Sight) -> None:
        """Labels are the director's; its own tests look at them."""

    def start_lane(self, model: FoundModel, version: FoundVersion, fingerprint: str) -> None:
        self.files.append(model.file)
        config = lane_config(next(self._ids), model.name, version.version)
        self.catalog.add(LaneRecord(config, 1, 1, fingerprint=fingerprint))

    def retire_lane(self, lane: int) -> None:
        self.catalog.remove(lane)

    def drop_lane(self, lane: int) -> None:
        self.catalog.remove(lane)
        self.keeper.reconcile()

    def become(self, state: Any) -> None:
        """Everything that loads is ready, or has failed."""
        for record in self.catalog.records():
            if record.state == "LOADING":
                record.state = state
        self.keeper.reconcile()

    def states(self) -> list[tuple[str, int, str]]:
        return sorted((r.config.model, r.config.version, r.state) for r in self.catalog.records())


Scenario = Callable[[Lanes], Coroutine[Any, Any, None]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    versioned(tmp_path, "a", {1: 1.0})
    versioned(tmp_path, "b", {1: 1.0, 2: 2.0})
    return tmp_path


def play(repository: Path, scenario: Scenario, chosen: Collection[str] | None = (), **options: Any) -> None:
    async def run() -> None:
        lanes = Lanes(repository, chosen, **options)
        lanes.become("READY")
        await scenario(lanes)

    asyncio.run(run())


def test_models_come_and_go_by_command_only(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        assert lanes.states() == [("a", 1, "READY")]
        await lanes.keeper.take({"b": ModelConfig()})
        lanes.become("READY")
        assert lanes.states() == [("a", 1, "READY"), ("b", 2, "READY")]
        assert await lanes.keeper.leave(["a"]) == set()
        assert lanes.states() == [("b", 2, "READY")]
        versioned(repository, "c", {1: 1.0})
        await lanes.keeper.look_at_all()
        assert lanes.states() == [("b", 2, "READY")]

    play(repository, scenario, {"a"})


def test_a_load_leaves_the_other_models_alone_whatever_became_of_them(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        versioned(repository, "a", {2: 1.0})
        await lanes.keeper.take({"b": ModelConfig()})
        lanes.become("READY")
        assert lanes.states() == [("a", 1, "READY"), ("b", 2, "READY")]
        await lanes.keeper.take({"a": ModelConfig()})
        lanes.become("READY")
        assert lanes.states() == [("a", 2, "READY"), ("b", 2, "READY")]

    play(repository, scenario, {"a", "b"})


@pytest.mark.parametrize("chosen", [None, {"a"}])
def test_what_failed_is_tried_again_on_demand_and_only_then(
    repository: Path, chosen: Collection[str] | None
) -> None:
    async def scenario(lanes: Lanes) -> None:
        versioned(repository, "a", {2: 1.0})
        await lanes.keeper.take({"a": ModelConfig()})
        lanes.become("FAILED")
        both = [("a", 1, "READY"), ("a", 2, "FAILED")]
        assert [state for state in lanes.states() if state[0] == "a"] == both
        await lanes.keeper.look_at_all()
        assert [state for state in lanes.states() if state[0] == "a"] == both
        await lanes.keeper.take({"a": ModelConfig()})
        assert [state for state in lanes.states() if state[0] == "a"] == [
            ("a", 1, "READY"),
            ("a", 2, "LOADING"),
        ]
        assert [lane and lane.state for lane in lanes.keeper.wanted_lanes("a")] == ["LOADING"]

    play(repository, scenario, chosen)


def test_a_load_on_demand_is_not_given_up_because_the_files_are_fresh(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        models.affine(repository / "a" / "1" / "model.onnx", scale=5.0)
        await lanes.keeper.take({"a": ModelConfig()})
        # The next poll comes while it loads, and the file was written within the last second.
        await lanes.keeper.look_at_all()
        assert lanes.states() == [("a", 1, "LOADING"), ("a", 1, "READY")]

    play(repository / "a", scenario, None, polls=True)


def test_a_load_does_not_forget_what_was_seen_of_the_others(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        shutil.rmtree(repository / "b")
        await lanes.keeper.take({"a": ModelConfig()})
        (b,) = (record for record in lanes.catalog.records() if record.config.model == "b")
        lanes.drop_lane(b.config.lane)
        assert lanes.states() == [("a", 1, "READY"), ("b", 2, "LOADING")]

    play(repository, scenario, {"a", "b"})


def test_an_override_makes_new_lanes_and_lasts_until_a_load_without_one(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        await lanes.keeper.take({"b": ModelConfig(max_batch_size=3, version_policy=Latest(2))})
        lanes.become("READY")
        assert lanes.states() == [("b", 1, "READY"), ("b", 2, "READY")]
        assert {file.max_batch_size for file in lanes.files} == {3}
        await lanes.keeper.look_at_all()
        assert len(lanes.files) == 2
        await lanes.keeper.take({"b": ModelConfig()})
        lanes.become("READY")
        assert lanes.states() == [("b", 2, "READY")]
        assert lanes.files[-1].max_batch_size is None

    play(repository, scenario)


def test_a_load_of_what_serves_already_does_nothing(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        await lanes.keeper.take({"a": ModelConfig()})
        assert (lanes.states(), len(lanes.files)) == ([("a", 1, "READY")], 1)

    play(repository, scenario, {"a"})


@pytest.mark.parametrize(
    ("overrides", "base_paths", "error", "message"),
    [
        ({"nobody": ModelConfig()}, {}, UnknownModelError, "there is no model 'nobody'"),
        (
            {"broken": ModelConfig()},
            {},
            FailedPreconditionError,
            "model 'broken' cannot be served as it is: ",
        ),
        (
            {"b": ModelConfig(version_policy=Specific((2, 7)))},
            {},
            InvalidRequestError,
            "model 'b' has no version 7",
        ),
        (
            {"tuned": ModelConfig(max_batch_size=2)},
            {},
            InvalidRequestError,
            "4 is more than the max_batch_size of 2",
        ),
        ({"b": ModelConfig()}, {"b": "/elsewhere"}, InvalidRequestError, "base_path '/elsewhere' is not"),
        ({"b": ModelConfig()}, {"b": "/a\0b"}, InvalidRequestError, "is not where the daemon has model 'b'"),
    ],
)
def test_a_load_that_cannot_be_changes_nothing(
    overrides: dict[str, ModelConfig],
    base_paths: dict[str, str],
    error: type[Exception],
    message: str,
    repository: Path,
) -> None:
    versioned(repository, "broken", {1: 1.0}, toml="max_batch_size = 'x'\n")
    versioned(repository, "tuned", {1: 1.0}, toml="preferred_batch_sizes = [4]\n")

    async def scenario(lanes: Lanes) -> None:
        with pytest.raises(error) as caught:
            await lanes.keeper.take({"a": ModelConfig(), **overrides}, base_paths)
        assert message in str(caught.value)
        await lanes.keeper.look_at_all()
        assert (lanes.states(), lanes.keeper.names) == ([], set())

    play(repository, scenario)


def test_a_base_path_may_be_written_otherwise(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        await lanes.keeper.take({"b": ModelConfig()}, {"b": f"{repository}/a/../b/"})
        assert lanes.states() == [("b", 2, "LOADING")]

    play(repository, scenario)


def test_leaving_gives_the_lanes_that_must_still_end(repository: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        await lanes.keeper.take({"b": ModelConfig()})
        (loading,) = lanes.catalog.records()
        loading.state = "UNLOADING"
        assert await lanes.keeper.leave(["b"]) == {loading.config.lane}
        assert not await lanes.keeper.is_there("nobody")
        assert await lanes.keeper.is_there("b")

    play(repository, scenario)
