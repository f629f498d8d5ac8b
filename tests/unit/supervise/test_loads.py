"""What was loaded by command: kept, and restored as far as it can be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from predictd.server.config.settings import Settings
from predictd.server.errors import ModelUnavailableError
from predictd.server.repository.watch import look, untuned
from predictd.server.supervise.loads import LoadJournal, Restored, restore
from predictd.server.supervise.state_file import Loads, StateError, StateFile
from tests.fixtures.processes import versioned


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        versioned(tmp_path / "models", name, {1: 1.0, 2: 2.0})
    return tmp_path / "models"


def restored(root: Path, loads: Loads, *named: str) -> Restored:
    settings = Settings(paths=(root,), model_control="explicit", load_model=named)
    return restore(settings, look([root]), loads, untuned)


def names(one: Restored) -> list[str]:
    return [model.name for model in one.sight.scan.models]


def test_without_commands_the_settings_decide(root: Path) -> None:
    assert names(restored(root, Loads())) == []
    assert names(restored(root, Loads(), "a", "b")) == ["a", "b"]
    assert names(restored(root, Loads(), "*")) == ["a", "b", "c"]


def test_commands_go_before_the_settings(root: Path) -> None:
    loads = Loads({"c": ""}, frozenset({"a", "gone"}))
    assert names(restored(root, loads, "a", "b")) == ["b", "c"]
    assert names(restored(root, Loads({}, frozenset({"a"})), "*")) == ["b", "c"]


def test_overrides_lie_over_what_is_restored(root: Path) -> None:
    config = '{"version_policy": {"specific": {"versions": [1]}}}'
    one = restored(root, Loads({"a": config, "b": ""}))
    assert sorted(one.sight.versions) == [("a", 1), ("b", 2)]
    assert (set(one.overrides), one.complaints) == ({"a"}, ())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('{"version_policy": {"specific": {"versions": [7]}}}', "model 'a' has no version 7"),
        ('{"platform": "x"}', "'platform' cannot be overridden"),
        ("{", "not JSON"),
    ],
)
def test_what_cannot_be_restored_is_a_line_and_the_rest_starts(root: Path, config: str, reason: str) -> None:
    loads = Loads({"a": config, "b": '{"max_batch_size": 3}', "gone": ""})
    one = restored(root, loads)
    assert (names(one), set(one.overrides)) == (["b"], {"b"})
    first, second = one.complaints
    assert first.startswith("model 'a' was loaded by command, which is not restored: ")
    assert reason in first
    assert second.endswith("there is no model 'gone' in the paths that the daemon serves")
    # What the settings name is loaded as they say.
    again = restored(root, loads, "a")
    assert (names(again), set(again.overrides)) == (["a", "b"], {"b"})


def test_a_model_that_cannot_be_served_as_it_is_is_still_wanted(root: Path) -> None:
    (root / "a" / "model.toml").write_text("no_such_key = 1\n")
    one = restored(root, Loads({"a": '{"max_batch_size": 3}'}))
    assert [model.name for model in one.sight.scan.rejected] == ["a"]
    assert (set(one.overrides), one.complaints) == ({"a"}, ())


def test_what_is_kept_is_on_disk_when_it_is_said_to_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = StateFile(tmp_path)
        try:
            journal = LoadJournal(state)
            await asyncio.gather(*(journal.loaded({f"m{number}": ""}) for number in range(8)))
            await journal.unloaded(["m3"])
        finally:
            state.close()

    asyncio.run(scenario())
    state = StateFile(tmp_path)
    state.close()
    assert sorted(state.loads.loaded) == [f"m{number}" for number in range(8) if number != 3]
    assert state.loads.unloaded == {"m3"}


def test_what_cannot_be_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StateError("no space left on device")

    state = StateFile(tmp_path)
    try:
        monkeypatch.setattr(StateFile, "write_loads", full)
        with pytest.raises(ModelUnavailableError, match="cannot be kept on disk"):
            asyncio.run(LoadJournal(state).loaded({"m": ""}))
        assert state.loads == Loads()
    finally:
        state.close()


def test_without_a_place_nothing_is_kept() -> None:
    asyncio.run(LoadJournal(None).loaded({"m": ""}))
