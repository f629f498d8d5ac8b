"""Lines of all processes, and what may stand on them."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import socket
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from predictd.server.observe import log_lines, logs
from predictd.server.observe.escape import escape_controls
from predictd.server.observe.log_event import ENCODED_BYTES_MAX, LogEvent
from predictd.server.observe.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
SECONDS = 30


class Terminal(io.StringIO):
    # typing.override needs Python 3.12.
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_COLOR", "1")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # pytest closes nothing of its own if configure() finds no handlers to replace.
    root.handlers[:] = []
    yield
    logging.captureWarnings(capture=False)
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@contextmanager
def writing(stream: io.StringIO, level: str = "info", role: str = "r") -> Iterator[LogWriter]:
    """Log to a stream; it has all when this is left."""
    writer = logs.configure(role, level, stream)
    writer.start()
    try:
        yield writer
    finally:
        writer.close(SECONDS)


def json_events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_time_role_and_pid() -> None:
    stream = io.StringIO()
    with writing(stream, role="supervisor"):
        logging.getLogger("predictd.test").info("loaded %s in %.1f s", "resnet", 1.25)
    (event,) = json_events(stream)
    assert re.fullmatch(TIME, str(event.pop("time")))
    assert event == {
        "level": "info",
        "role": "supervisor",
        "pid": os.getpid(),
        "logger": "predictd.test",
        "message": "loaded resnet in 1.2 s",
    }


def test_the_time_is_utc() -> None:
    event = LogEvent(unix_seconds=1_700_000_000.0625, level="info", logger="l", message="x")
    assert json.loads(log_lines.machine(event, "r", 1))["time"] == "2023-11-14T22:13:20.062Z"


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    with writing(stream, role="supervisor"):
        logging.getLogger("predictd.test").warning("queue full", extra={"pool": "resnet", "depth": 3})
    expected = rf"{TIME} WARNING supervisor\[{os.getpid()}\] queue full pool=resnet depth=3\n"
    assert re.fullmatch(expected, stream.getvalue())


def test_a_terminal_gets_colours_unless_it_shall_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with writing(stream):
        logging.getLogger("t").error("m")
    assert "\x1b[31mERROR  \x1b[0m" in stream.getvalue()


def test_extra_fields_are_kept_and_cannot_take_the_place_of_others() -> None:
    stream = io.StringIO()
    extra = {
        "pool": "resnet",
        "depth": 3,
        "role": "liar",
        "stack": "liar",
        "path": Path("/x"),
        "large": 2**70,
    }
    with writing(stream):
        logging.getLogger("t").info("m", extra=extra)
    (event,) = json_events(stream)
    assert (event["pool"], event["depth"], event["role"], event["path"]) == ("resnet", 3, "r", "/x")
    assert event["large"] == str(2**70)
    assert "stack" not in event


HOSTILE = 'a\nb\r\x1b[31mred\x00\x85\u2028\u202e\udce9"end'


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "terminal"])
def test_nothing_in_an_event_ends_its_line_or_drives_the_terminal(stream: io.StringIO) -> None:
    with writing(stream, role="role\n2"):
        logging.getLogger("t").info(
            "model %s", HOSTILE, extra={"field": HOSTILE, HOSTILE: 1, "stack": HOSTILE}
        )
    text = stream.getvalue()
    assert text.endswith("\n")
    assert all(char.isprintable() for char in text[:-1])


def test_an_exception_is_one_field_of_json() -> None:
    stream = io.StringIO()
    with writing(stream):
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
    with writing(stream):
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
def test_the_level_decides_what_is_written_also_when_it_changes(level: str, written: list[str]) -> None:
    stream = io.StringIO()
    with writing(stream, "error" if level == "debug" else "debug"):
        logs.set_level(level)
        assert logs.current_level() == level
        for name in logs.LEVELS:
            logging.getLogger("t").log(getattr(logging, name.upper()), "m")
    assert [event["level"] for event in json_events(stream)] == written


@pytest.mark.parametrize("level", ["", "loud", "INFO", "10"])
def test_an_unknown_level_is_refused_by_name(level: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"log level {level!r} is none of debug, info, warning, error")
    ):
        logs.set_level(level)


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    with writing(first), writing(second):
        logging.getLogger("t").info("m")
    assert (first.getvalue(), len(json_events(second))) == ("", 1)


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    writer = logs.configure("r", "info")
    logging.getLogger("t").info("hello")
    writer.close(SECONDS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "hello"


def test_warnings_of_python_are_events_too() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings(), writing(stream):
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old\nthing", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (event,) = json_events(stream)
    assert (event["level"], event["logger"]) == ("warning", "py.warnings")
    assert "old\nthing" in str(event["message"])


def test_a_flood_is_one_line_now_and_one_with_a_count_when_its_second_is_over() -> None:
    stream = io.StringIO()
    with writing(stream):
        for number in range(1000):
            logging.getLogger("t").warning("request %d failed", number, extra={"model": "m"})
        logging.getLogger("t").warning("request %d failed", 1000, extra={"model": "other"})
        give_up = time.monotonic() + SECONDS
        while len(stream.getvalue().splitlines()) < 3 and time.monotonic() < give_up:
            logs.report_left_out()
            time.sleep(0.01)
    first, other, last = json_events(stream)
    assert (first["message"], other["model"], last["message"]) == (
        "request 0 failed",
        "other",
        "request 999 failed",
    )
    assert last["left_out"] == 998


def test_what_a_child_logs_is_written_with_its_role_and_pid() -> None:
    stream = io.StringIO()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        logs.configure_child(theirs.detach(), "info")
        try:
            raise ValueError("reason")
        except ValueError:
            logging.getLogger("t").exception("failed", extra={"model": "resnet"})
        data = ours.recv(ENCODED_BYTES_MAX)
    with writing(stream) as writer:
        logs.relay(msgspec.msgpack.decode(data, type=LogEvent), "worker resnet 0", 77)
    (event,) = json_events(stream)
    assert (event["role"], event["pid"], event["model"], event["message"]) == (
        "worker resnet 0",
        77,
        "resnet",
        "failed",
    )
    assert "ValueError: reason" in str(event["exception"])
    (recent,) = writer.recent.newest_first()
    assert (recent.level, recent.role, recent.model, recent.text) == (
        "error",
        "worker resnet 0",
        "resnet",
        "failed",
    )


def test_a_child_whose_supervisor_does_not_read_goes_on_and_counts() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        logs.configure_child(theirs.detach(), "info")
        log = logging.getLogger(logs.REQUESTS)
        for _ in range(20_000):
            log.info("m")
        ours.setblocking(False)
        taken = 0
        with suppress(BlockingIOError):
            while ours.recv(ENCODED_BYTES_MAX):
                taken += 1
        assert 0 < taken < 20_000
        log.info("m")
        event = msgspec.msgpack.decode(ours.recv(ENCODED_BYTES_MAX), type=LogEvent)
    assert event.fields["lines_lost"] == 20_000 - taken
    log.info("nobody is there any more")


def test_a_child_may_log_what_utf_8_cannot_write() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        logs.configure_child(theirs.detach(), "info")
        ours.settimeout(SECONDS)
        try:
            raise OSError("p\udcff")
        except OSError:
            logging.getLogger("t").exception("no %s", "m\udcff", extra={"f\udcff": "v\udcff"})
        event = msgspec.msgpack.decode(ours.recv(ENCODED_BYTES_MAX), type=LogEvent)
    assert (event.message, event.fields) == (r"no m\udcff", {r"f\udcff": r"v\udcff"})
    assert r"OSError: p\udcff" in event.blocks["exception"]


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    stream = io.StringIO()
    with writing(stream):
        logging.getLogger("t").info("m", extra={"much": math.inf, "none": math.nan, "some": 1.5})
    (event,) = json_events(stream)
    assert (event["much"], event["none"], event["some"]) == ("inf", "nan", 1.5)


def test_the_largest_event_fits_a_packet() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    long = "\U0001f600" * 100_000
    with ours:
        logs.configure_child(theirs.detach(), "info")
        try:
            raise ValueError(long)
        except ValueError:
            logging.getLogger("t").exception(long, extra={f"field_{number}": long for number in range(100)})
        data = ours.recv(10 * ENCODED_BYTES_MAX)
    assert len(data) <= ENCODED_BYTES_MAX
    event = msgspec.msgpack.decode(data, type=LogEvent)
    assert event.blocks["exception"].endswith("\U0001f600")
    assert event.blocks["exception"].startswith("Traceback")


def test_who_logs_in_a_wrong_way_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with writing(stream):
        logging.getLogger("t").info("%d", "no number")
        logging.getLogger("t").info("next")
    (event,) = json_events(stream)
    assert event["message"] == "next"
    assert "no number" in capsys.readouterr().err


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    # typing.override needs Python 3.12.
    def write(self, text: str) -> int:  # type: ignore[explicit-override]
        assert self.go.wait(SECONDS)
        return super().write(text)


def test_a_stream_that_does_not_take_lines_holds_nobody_up_and_the_loss_is_counted() -> None:
    stream = Stuck()
    writer = LogWriter(stream, waiting_max=10)
    writer.start()
    for _ in range(100):
        writer.put(LogEvent(unix_seconds=0, level="info", logger="l", message="m"), "r", 1)
    stream.go.set()
    writer.close(SECONDS)
    *lines, last = json_events(stream)
    assert 10 <= len(lines) <= 11
    assert (
        last["message"]
        == f"{100 - len(lines)} log lines are lost: they came faster than they could be written"
    )


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
