"""The status page in a headless Chromium, and `predictd top` in a terminal: both say what /metrics says."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.client import Client, InvalidRequestError, NotFoundError
from tests.fixtures import browser
from tests.fixtures.browser import Page
from tests.fixtures.daemon import COMMAND, Daemon
from tests.fixtures.processes import X, serving, versioned

# A file's name, which is in the reason why a model failed, that would be markup if anybody took it for that.
EVIL = "<img src=x onerror=alert(1)>"
BOUNDS = {"1 row": "1.0", "2 rows": "2.0", "3 to 4 rows": "4.0", "5 to 8 rows": "8.0"}


@contextmanager
def daemon_with_a_past(folder: Path) -> Iterator[Daemon]:
    """One that has answered and refused, with a model that failed, and is at rest."""
    repository = folder / "models"
    versioned(repository, "double", {1: 2.0, 2: 2.0}, 'version_policy = "all"\n[labels]\nstable = 1\n')
    versioned(repository, "triple", {7: 3.0})
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "config.pbtxt").write_text(
        f'platform: "onnxruntime_onnx"\ndefault_model_filename: "{EVIL}.onnx"\n'
    )
    (repository / "broken" / "1" / f"{EVIL}.onnx").write_bytes(b"no model")
    options = ("--frontends", "1", "--instances", "1", "--pools", "per-model")
    with serving(repository, *options, folder=folder / "run") as daemon:
        with Client(daemon.grpc) as client:
            client.set_split("double", {1: 25, 2: 75})
            for rows in (1, 1, 1, 2, 3, 4, 8, 8):
                client.predict("double", {"x": np.ones((rows, 4), np.float32)}, version=2)
            for _ in range(3):
                with pytest.raises(InvalidRequestError):
                    client.predict("double", {"y": X}, version=1)
            with pytest.raises(NotFoundError):
                client.predict("nobody", {"x": X})
        # At rest is also what they report of it.
        daemon.wait_metric("predictd_requests_total", 12)
        daemon.wait_metric("predictd_runs_total", 8)
        yield daemon


def rows(page: Page, table: str) -> dict[tuple[str, ...], dict[str, str]]:
    """A table as it is read: cells by the titles of their columns, rows by the first two cells."""
    cells: list[list[tuple[str, str]]] = page.ask(
        f"[...document.querySelectorAll('#{table} > tr')].map((row) => "
        "[...row.cells].map((cell) => [cell.dataset.label, cell.textContent]))"
    )
    found = [dict(row) for row in cells]
    return {tuple(list(row.values())[:2]): row for row in found}


def test_the_page_shows_what_the_metrics_say(tmp_path: Path) -> None:
    program = browser.find()
    if program is None:
        pytest.skip(browser.HOW_TO_INSTALL)
    with daemon_with_a_past(tmp_path) as daemon:
        _only_looking(daemon)
        with browser.browsing(program, tmp_path) as page:
            page.look(1280, 900, dark=False)
            page.send("Page.navigate", url=f"http://{daemon.http}/")
            page.wait_until("document.title === 'predictd: ready'")
            # The past shows in the charts of a page that was opened later.
            page.wait_until(
                "['.first', '.second', '.third'].every((name) => document.querySelector('#charts ' + name))"
            )
            _models_match(page, daemon)
            _batches_match(page, daemon)
            _processes_match(page, daemon)
            _can_be_read(page, tmp_path)
            _can_be_used_by_keyboard(page)
            _rests_while_hidden(page)
            assert page.complaints == []
            assert daemon.stop() == 0
            page.wait_until("!document.getElementById('trouble').hidden")
            page.wait_until("document.getElementById('freshness').textContent.startsWith('last update ')")
            assert "does not answer" in page.ask("document.getElementById('trouble').textContent")
            # What it showed is still there to be read.
            assert ("double", "2") in rows(page, "models")


def _only_looking(daemon: Daemon) -> None:
    for path in ("/", "/status.json"):
        for method, status in (("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405)):
            request = urllib.request.Request(f"http://{daemon.http}{path}", method=method)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    found, body = answer.status, answer.read()
                    assert answer.headers["Cache-Control"] == "no-store"
            except urllib.error.HTTPError as error:
                with error:
                    found, body = error.code, b""
            assert (found, body) == (status, b""), (method, path)


def _models_match(page: Page, daemon: Daemon) -> None:
    shown = rows(page, "models")
    assert shown.keys() == {("broken", "1"), ("double", "2"), ("double", "1"), ("triple", "7")}
    for (model, version), row in shown.items():
        labels = {"model": model, "version": version}
        good = daemon.metric("predictd_requests_total", status="OK", **labels)
        assert int(row["OK"]) == good
        bad = daemon.metric("predictd_requests_total", **labels) - good
        assert int(row["not OK"]) == bad
        assert int(row["waiting"]) == daemon.metric("predictd_waiting_requests", **labels)
        assert daemon.metric("predictd_lane_state", state=row["state"], **labels) == 1
    assert shown["double", "2"]["OK"] == "8"
    assert (shown["double", "1"]["not OK"], shown["double", "1"]["remarks"]) == ("3", "INVALID_ARGUMENT 3")
    assert shown["double", "1"]["traffic"] == "stable, 25 %"
    assert shown["double", "2"]["traffic"] == "75 %"
    assert "Protobuf parsing failed" in shown["broken", "1"]["remarks"]
    events = rows(page, "events").values()
    (failure,) = (row for row in events if "Protobuf parsing failed" in row["what"])
    assert (failure["level"], failure["model"]) == ("error", "broken")
    # The name is text: no element came of it, and nothing that would have complained.
    assert EVIL in shown["broken", "1"]["remarks"]
    assert page.ask("document.querySelectorAll('main img').length") == 0


def _batches_match(page: Page, daemon: Daemon) -> None:
    below = 0.0
    shown = {key[0]: int(row["runs"]) for key, row in rows(page, "batches").items()}
    assert shown.keys() <= BOUNDS.keys()
    for label, bound in BOUNDS.items():
        upto = daemon.metric("predictd_batch_rows_bucket", le=bound)
        assert shown.get(label, 0) == upto - below, label
        below = upto
    assert below == daemon.metric("predictd_runs_total") == 8


def _processes_match(page: Page, daemon: Daemon) -> None:
    shown = {key[0]: row for key, row in rows(page, "processes").items()}
    assert {"supervisor 0", "frontend 0", "worker double/0"} <= shown.keys()
    assert shown["frontend 0"]["pid"] == str(daemon.pids("front ends")[0])
    for name, row in shown.items():
        role, _, index = name.partition(" ")
        if (row["state"], role) != ("stopped", "worker"):
            resident = daemon.metric("predictd_process_resident_bytes", role=role, index=index)
            number, unit = row["resident"].split()
            # Pages come and go between two looks.
            assert float(number) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit] == pytest.approx(resident, rel=0.2)
    plan = page.ask("document.getElementById('plan-reasons').innerText")
    assert "front ends: 1, as --frontends says" in plan
    pools = rows(page, "pools")
    assert {key[0]: row["waiting"] for key, row in pools.items()} == {"double": "0", "triple": "0"}
    assert pools["double", "1 of 1"]["by priority"].split(" + ") == ["0"] * 3


def _can_be_read(page: Page, folder: Path) -> None:
    """In both themes, down to the width of a small phone: nothing sticks out, and text stands out."""
    grounds = set()
    for width in (1280, 360):
        for dark in (False, True):
            page.look(width, 900, dark=dark)
            page.wait_until(f"innerWidth === {width}")
            assert page.ask("document.documentElement.scrollWidth") == width
            grounds.add(page.ask("getComputedStyle(document.body).backgroundColor"))
            for element in ("#models th", "#build", "#ready", ".n", "footer a", "#plan-warnings"):
                assert page.ask(_CONTRAST % element) >= 4.5, (element, width, dark)
            page.screenshot(folder / f"page-{width}-{'dark' if dark else 'light'}.png")
    assert len(grounds) == 2
    # Cells that stand below each other are still cells of a table to those who hear it.
    assert page.ask("document.querySelector('#models td').computedRole ?? 'cell'") == "cell"
    named = "[...document.querySelectorAll('#charts svg')].map((chart) => chart.getAttribute('aria-label'))"
    charts = page.ask(named)
    assert len(charts) == 3
    assert all("the last five minutes: now " in chart for chart in charts)
    page.look(1280, 900, dark=False)


# As the guidelines for accessible content (WCAG 2) define it, of an element's text before what is behind it.
_CONTRAST = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 10 ? c / 3294.6 : ((c / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const element = document.querySelector('%s');
  let behind = element;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const colors = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
  const both = colors.map((color) => light(numbers(color)));
  return (Math.max(...both) + .05) / (Math.min(...both) + .05);
})()"""


def _can_be_used_by_keyboard(page: Page) -> None:
    page.ask("document.activeElement.blur()")
    page.press("Tab", 9)
    assert page.ask("document.activeElement.id") == "pause"
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13, "\r")
    page.wait_until("document.getElementById('freshness').textContent.startsWith('paused')")
    page.press("Enter", 13, "\r")
    page.wait_until("document.getElementById('freshness').textContent === 'live'")
    page.press("Tab", 9)
    assert page.ask("document.activeElement.id") == "model"
    page.ask(
        "document.activeElement.value = 'double'; document.activeElement.dispatchEvent(new Event('change'))"
    )
    page.wait_until("charts[0].points.requests_per_second.some(Boolean) && $('model').value === 'double'")
    before = page.ask("document.activeElement.id")
    seen = page.ask("updated")
    page.wait_until(f"updated > {seen}")
    # A refresh takes nobody's place away.
    assert page.ask("document.activeElement.id") == before


def _rests_while_hidden(page: Page) -> None:
    hide = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
    change = "document.dispatchEvent(new Event('visibilitychange'))"
    page.ask(hide.format("true") + change)
    page.wait_until("timer === null && asked === null")
    seen = page.ask("updated")
    page.ask(hide.format("false") + change)
    page.wait_until(f"updated > {seen} && timer !== null")


# predictd top -----------------------------------------------------------------------------------------------------


_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def test_the_terminal_shows_it_and_is_left_as_it_was(tmp_path: Path) -> None:
    with daemon_with_a_past(tmp_path) as daemon:
        document: dict[str, Any] = json.loads(daemon.get("/status.json")[1])
        assert document["requests"]["OK"] == daemon.metric("predictd_requests_total", status="OK") == 8
        once = [*COMMAND, "top", "--http", daemon.http]
        done = subprocess.run(once, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert re.search(r"^double +2 +READY +8 +0 ", done.stdout, re.MULTILINE)
        assert re.search(r"^double +1 +READY +0 +3 ", done.stdout, re.MULTILINE)
        assert re.search(r"broken version 1: .*Protobuf parsing failed", " ".join(done.stdout.split()))
        assert re.search(r"\d\d:\d\d:\d\d error .*Protobuf parsing failed", " ".join(done.stdout.split()))
        for leave, status in ((b"q", 0), (signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)):
            _watched_and_left(daemon, leave, status)


def _watched_and_left(daemon: Daemon, leave: bytes | signal.Signals, status: int) -> None:
    master, slave = pty.openpty()
    try:
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
        before = termios.tcgetattr(slave)
        process = subprocess.Popen(
            [*COMMAND, "top", "--http", daemon.http],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        try:
            seen = _read_until(master, r"predictd ready")
            assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON)
            ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 130, 0, 0))
            process.send_signal(signal.SIGWINCH)
            # What only a wide terminal shows.
            seen += _read_until(master, r"P99\.9 +ROWS +TRAFFIC")
            if isinstance(leave, bytes):
                os.write(master, leave)
            else:
                process.send_signal(leave)
            seen += _read_until(master, r"\x1b\[\?1049l")
            assert process.wait(30) == status
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        assert termios.tcgetattr(slave) == before
        assert "\x1b[?25h" in seen.rpartition("\x1b[?25l")[2], "the cursor is left hidden"
        assert "Traceback" not in seen
    finally:
        os.close(master)
        os.close(slave)


def _read_until(master: int, pattern: str, seconds: float = 60.0) -> str:
    """What a terminal is sent until something is in it, without its colours."""
    text, deadline = "", time.monotonic() + seconds
    os.set_blocking(master, False)
    while not re.search(pattern, _COLOR.sub("", text)):
        assert time.monotonic() < deadline, f"not {pattern} at the end of {text[-4000:]!r}"
        try:
            text += os.read(master, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
    return text
