from __future__ import annotations

import io
import json
import logging
import os
import re
import warnings
from typing import TYPE_CHECKING

import pytest

from predictd.server.observe import logs
from predictd.server.observe.escape import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Terminal(io.StringIO):
    # typing.override needs Python 3.12.
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # pytest closes nothing of its own if configure() finds no handlers to replace.
    root.handlers[:] = []
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def json_events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_time_role_and_pid() -> None:
    stream = io.StringIO()
    logs.configure("worker resnet 0", "info", stream)
    logging.getLogger("predictd.test").info("loaded %s in %.1f s", "resnet", 1.25)
    (event,) = json_events(stream)
    assert re.fullmatch(TIME, str(event.pop("time")))
    assert event == {
        "level": "info",
        "role": "worker resnet 0",
        "pid": os.getpid(),
        "logger": "predictd.test",
        "message": "loaded resnet in 1.2 s",
    }


def test_the_time_is_utc() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.0625, "msg": "x", "levelname": "INFO"})
    assert json.loads(logs.JsonFormatter("r").format(record))["time"] == "2023-11-14T22:13:20.062Z"


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    logs.configure("supervisor", "info", stream)
    logging.getLogger("predictd.test").warning("queue full", extra={"pool": "resnet"})
    expected = rf"{TIME} WARNING supervisor\[{os.getpid()}\] queue full pool=resnet\n"
    assert re.fullmatch(expected, stream.getvalue())


def test_extra_fields_are_kept_and_cannot_take_the_place_of_others() -> None:
    stream = io.StringIO()
    logs.configure("r", "info", stream)
    extra = {"pool": "resnet", "depth": 3, "role": "liar", "path": os.fspath("/x"), "thing": {1}}
    logging.getLogger("t").info("m", extra=extra)
    (event,) = json_events(stream)
    assert (event["pool"], event["depth"], event["role"], event["thing"]) == ("resnet", 3, "r", "{1}")


HOSTILE = 'a\nb\r\x1b[31mred\x00\x85\u2028\u202e\udce9"end'


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "terminal"])
def test_nothing_in_an_event_ends_its_line_or_drives_the_terminal(stream: io.StringIO) -> None:
    logs.configure("role\n2", "info", stream)
    logging.getLogger("t").info("model %s", HOSTILE, extra={"field": HOSTILE})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert all(char.isprintable() for char in text[:-1])


def test_an_exception_is_one_field_of_json() -> None:
    stream = io.StringIO()
    logs.configure("r", "info", stream)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("t").exception("failed", stack_info=True)
    (event,) = json_events(stream)
    story = str(event["exception"])
    assert story.startswith("Traceback (most recent call last):\n")
    assert "ValueError: first\nsecond\nStack (most recent call last):\n" in story


def test_an_exception_on_a_terminal_is_indented_below_its_event() -> None:
    stream = Terminal()
    logs.configure("r", "info", stream)
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("t").exception("failed")
    first, *story = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert story[0] == "    Traceback (most recent call last):"
    assert story[-1] == r"    ValueError: \x1b[2J"
    assert all(line.startswith("    ") for line in story)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_what_is_written(level: str, written: list[str]) -> None:
    stream = io.StringIO()
    logs.configure("r", level, stream)
    for name in logs.LEVELS:
        logging.getLogger("t").log(getattr(logging, name.upper()), "m")
    assert [event["level"] for event in json_events(stream)] == written


@pytest.mark.parametrize("level", ["", "loud", "INFO", "10"])
def test_an_unknown_level_is_refused_by_name(level: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"log level {level!r} is none of debug, info, warning, error")
    ):
        logs.configure("r", level)


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("r", "info", first)
    logs.configure("r", "info", second)
    logging.getLogger("t").info("m")
    assert (first.getvalue(), len(json_events(second))) == ("", 1)


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("r", "info")
    logging.getLogger("t").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "hello"


def test_warnings_of_python_are_events_too() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("r", "info", stream)
        warnings.warn("old\nthing", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (event,) = json_events(stream)
    assert (event["level"], event["logger"]) == ("warning", "py.warnings")
    assert "old\nthing" in str(event["message"])


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain äöü 漢字 🙂", "plain äöü 漢字 🙂"),
        ("a\tb\n", r"a\tb\n"),
        ("\x7f\x9b\u200e\ufeff", r"\x7f\x9b\u200e\ufeff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_only_what_can_do_harm_is_escaped(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped
