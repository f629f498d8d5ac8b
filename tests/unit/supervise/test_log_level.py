"""One level in all processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from predictd.server.control.message import Message
from predictd.server.control.messages import LogLevel
from predictd.server.supervise.log_level import LogLevelControl


class Told:
    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)


@pytest.fixture(autouse=True)
def _level_as_before() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize(
    ("configured", "levels"),
    [
        ("info", ["debug", "info", "debug"]),
        ("warning", ["debug", "warning", "debug"]),
        ("debug", ["info", "debug", "info"]),
    ],
)
def test_the_signal_toggles_and_everybody_hears(configured: str, levels: list[str]) -> None:
    child = Told()
    control = LogLevelControl(configured, lambda: [child])
    seen = []
    for _ in levels:
        control.toggle()
        seen.append(control.level)
        assert logging.getLogger().level == getattr(logging, control.level.upper())
    assert seen == levels
    assert child.heard == [LogLevel(level=level) for level in levels]


def test_a_new_child_hears_of_what_was_changed_only() -> None:
    child = Told()
    control = LogLevelControl("info", list)
    control.greet(child)
    assert child.heard == []
    control.change("error", "a client")
    control.greet(child)
    assert child.heard == [LogLevel(level="error")]


@pytest.mark.parametrize(("old", "new"), [("debug", "error"), ("error", "debug")])
def test_the_change_itself_is_logged(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().setLevel(old.upper())
    LogLevelControl(old, list).change(new, "a client")
    assert [record.getMessage() for record in caplog.records] == [
        f"a client changes the log level from {old} to {new}"
    ]
