"""Changes of labels and splits: kept before they take effect, answered once every front end has them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from predictd.server.control.commands import LabelsDone, SetLabel, SetSplit
from predictd.server.control.message import Message
from predictd.server.control.publication import LabelView, PublishModel
from predictd.server.errors import FailedPreconditionError, InvalidRequestError
from predictd.server.repository.traffic import Traffic
from predictd.server.supervise import directing, state_file
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.directing import Director
from predictd.server.supervise.state_file import StateError, StateFile
from tests.fixtures.frontend import config

LABEL = SetLabel(seq=7, model="m", label="canary", version=2, allow_unready=False)
SPLIT = SetSplit(seq=8, model="m", split=((1, 90), (2, 10)), allow_unready=False)


class Asker:
    """The front end that asks."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)


class Stage:
    """A director with everything around it. Front ends take a publication in when the test says so."""

    def __init__(self, state: StateFile | None = None, *, tfs_unready_labels: bool = False) -> None:
        self.catalog = Catalog(LaneRecord(config(lane, version=lane), 1, 1, state="READY") for lane in (1, 2))
        self.asker = Asker()
        self.published: list[PublishModel] = []
        self.done: list[Callable[[], None]] = []
        self._news = asyncio.Event()
        self.director = Director(self.catalog, state, self._publish, tfs_unready_labels=tfs_unready_labels)

    def _publish(self, publication: PublishModel, done: Callable[[], None]) -> None:
        self.published.append(publication)
        self.done.append(done)
        self._news.set()

    def ask(self, message: SetLabel | SetSplit) -> asyncio.Task[None]:
        return asyncio.create_task(self.director.change(self.asker, message))  # type: ignore[arg-type]

    async def until_published(self, number: int) -> None:
        while len(self.published) < number:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 30)

    async def carry_out(self, message: SetLabel | SetSplit) -> Message:
        task = self.ask(message)
        await self.until_published(len(self.published) + 1)
        self.done[-1]()
        await task
        return self.asker.heard[-1]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    one = StateFile(tmp_path)
    yield one
    one.close()


def test_a_change_is_answered_once_every_front_end_has_it() -> None:
    async def scenario() -> None:
        stage = Stage()
        task = stage.ask(LABEL)
        await stage.until_published(1)
        assert (stage.asker.heard, task.done()) == ([], False)
        stage.done[0]()
        await task
        assert stage.asker.heard == [LabelsDone(seq=7)]
        (told,) = stage.published
        assert told.labels == (LabelView(name="canary", version=2, set_by="run time"),)

    asyncio.run(scenario())


def test_a_front_end_that_hangs_holds_up_nobody_and_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage()
        monkeypatch.setattr(directing, "TAKEN_IN_SECONDS", 60.0)
        first = stage.ask(LABEL)
        await stage.until_published(1)
        # The first is not confirmed, and the next goes on.
        assert await stage.carry_out(SPLIT) == LabelsDone(seq=8)
        assert stage.published[-1].split == ((1, 90), (2, 10))
        stage.done[0]()
        await first
        monkeypatch.setattr(directing, "TAKEN_IN_SECONDS", 0.0)
        await stage.ask(LABEL)
        (late,) = [m for m in stage.asker.heard[2:] if isinstance(m, LabelsDone)]
        assert (late.status, late.message) == (
            "UNAVAILABLE",
            "it is set, but a front end has not confirmed it yet",
        )
        # Its confirmation comes when nobody waits for it any more.
        stage.done[-1]()

    asyncio.run(scenario())


def test_a_change_is_on_disk_before_any_front_end_has_it(state: StateFile) -> None:
    async def scenario() -> None:
        stage = Stage(state)
        task = stage.ask(LABEL)
        await stage.until_published(1)
        assert b'"canary": 2' in state.path.read_bytes()
        stage.done[0]()
        await task
        assert await stage.carry_out(SPLIT) == LabelsDone(seq=8)
        taken_back = SetLabel(seq=9, model="m", label="canary", version=None, allow_unready=False)
        assert await stage.carry_out(taken_back) == LabelsDone(seq=9)
        cleared = SetSplit(seq=10, model="m", split=(), allow_unready=False)
        assert await stage.carry_out(cleared) == LabelsDone(seq=10)
        assert json.loads(state.path.read_bytes()) == {"format": 1}

    asyncio.run(scenario())


def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    state: StateFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(_: object) -> None:
        raise StateError("state.json cannot be written: no space left on device")

    async def scenario() -> None:
        stage = Stage(state)
        monkeypatch.setattr(state, "write", write)
        await stage.ask(LABEL)
        refusal = LabelsDone(seq=7, status="UNAVAILABLE", message="the change cannot be kept on disk")
        assert (stage.asker.heard, stage.published, stage.catalog.traffic) == ([refusal], [], {})
        assert "no space left on device" in caplog.text

    asyncio.run(scenario())


def test_changes_at_the_same_time_are_all_kept(state: StateFile) -> None:
    async def scenario() -> None:
        stage = Stage(state)
        tasks = [
            stage.ask(SetLabel(seq=n, model="m", label=f"l{n}", version=1 + n % 2, allow_unready=False))
            for n in range(20)
        ]
        await stage.until_published(20)
        for done in stage.done:
            done()
        await asyncio.gather(*tasks)
        kept = state_file._read(state.path.read_bytes())
        assert kept[0] == {"m": Traffic({f"l{n}": 1 + n % 2 for n in range(20)})}

    asyncio.run(scenario())


def test_a_refusal_says_why_and_publishes_nothing() -> None:
    async def scenario() -> None:
        stage = Stage()
        await stage.ask(SetLabel(seq=1, model="m", label="a", version=9, allow_unready=True))
        assert stage.asker.heard == [
            LabelsDone(seq=1, status="NOT_FOUND", message="model 'm' has no version 9 (versions: 2, 1)")
        ]
        assert stage.published == []

    asyncio.run(scenario())


def test_without_a_folder_it_is_said_once_that_settings_end_with_the_daemon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        stage = Stage()
        await stage.carry_out(LABEL)
        await stage.carry_out(SPLIT)

    asyncio.run(scenario())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["what is set at run time ends with the daemon: --state-dir would keep it"]


def test_what_was_kept_holds_from_the_start_and_what_is_gone_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        state = StateFile(tmp_path)
        state.write({"m": Traffic({"canary": 2}, {1: 90, 7: 10}), "n": Traffic({"a": 1})})
        state.close()
        state = StateFile(tmp_path)
        stage = Stage(state)
        state.close()
        told = stage.catalog.publication("m")
        assert [(label.name, label.version) for label in told.labels] == [("canary", 2)]
        assert (told.split, told.default_version) == (((1, 90), (7, 10)), 1)
        for _ in range(2):
            stage.director.complain({"m": {1, 2}})
        assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
            "label 'a' of model 'n' was set at run time to version 1",
            "the split of model 'm' that was set at run time names version 7",
        ]

    asyncio.run(scenario())


def test_labels_of_configurations_are_compared_with_those_before() -> None:
    catalog = Catalog([LaneRecord(config(1), 1, 1, state="READY")])
    assert catalog.configure_labels({"m": {"stable": 1}, "n": {}}) == {"m"}
    assert catalog.configure_labels({"m": {"stable": 1}, "n": {"a": 2}}) == {"n"}
    assert catalog.publication("m").labels == (LabelView(name="stable", version=1, set_by="configuration"),)
    assert catalog.configure_labels({"n": {"a": 2}}) == {"m"}
    assert catalog.publication("m").labels == ()


# Lists of models ----------------------------------------------------------------------------------------------


def test_a_list_replaces_what_was_set_at_run_time_and_leaves_the_split(state: StateFile) -> None:
    async def scenario() -> None:
        stage = Stage(state)
        await stage.carry_out(LABEL)
        await stage.carry_out(SPLIT)
        task = asyncio.ensure_future(stage.director.replace_labels({"m": {"stable": 1}}))
        await stage.until_published(3)
        stage.done[-1]()
        await task
        kept = Traffic({"stable": 1}, {1: 90, 2: 10})
        assert (stage.catalog.traffic, state.traffic) == ({"m": kept}, {"m": kept})
        # The same again is nothing new.
        await stage.director.replace_labels({"m": {"stable": 1}})
        assert len(stage.published) == 3

    asyncio.run(scenario())


def test_a_list_with_one_wrong_label_changes_none() -> None:
    async def scenario() -> None:
        stage = Stage()
        with pytest.raises(FailedPreconditionError, match="version 3 of model 'm', which is not currently"):
            await stage.director.replace_labels({"m": {"stable": 1, "canary": 3}})
        with pytest.raises(InvalidRequestError, match="'7' cannot be a label"):
            await stage.director.replace_labels({"m": {"7": 1}})
        assert (stage.catalog.traffic, stage.published) == ({}, [])

    asyncio.run(scenario())


def test_where_it_is_allowed_a_label_not_in_use_may_be_given_ahead_of_its_version() -> None:
    async def scenario() -> None:
        stage = Stage(tfs_unready_labels=True)
        task = asyncio.ensure_future(stage.director.replace_labels({"m": {"stable": 1, "canary": 3}}))
        await stage.until_published(1)
        stage.done[-1]()
        await task
        assert stage.catalog.traffic["m"].labels == {"stable": 1, "canary": 3}
        with pytest.raises(FailedPreconditionError, match="label 'stable' cannot be given to version 3"):
            await stage.director.replace_labels({"m": {"stable": 3}})

    asyncio.run(scenario())
