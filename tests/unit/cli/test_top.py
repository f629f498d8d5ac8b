"""`predictd top` without a daemon: what a frame says, and that it fits."""

from __future__ import annotations

import http.server
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from predictd.server.cli.top_frame import frame
from tests.unit.cli.test_main import run

IDLE = {
    "requests_per_second": 0.0,
    "errors_per_second": 0.0,
    "p50_seconds": None,
    "p99_seconds": None,
    "p999_seconds": None,
}
BUSY = {
    "requests_per_second": 1234.4,
    "errors_per_second": 0.5,
    "p50_seconds": 0.000345,
    "p99_seconds": 0.0123,
    "p999_seconds": 2.5,
}


def version(number: int, *, state: str = "READY", reason: str = "", now: dict[str, Any] | None = None) -> Any:
    return {
        "version": number,
        "state": state,
        "reason": reason,
        "requests": {"OK": 41, "INTERNAL": 2, "CANCELLED": 1},
        "runs": 4,
        "rows": 10,
        "now": now or IDLE,
    }


def status(*models: tuple[str, list[Any]], processes: int = 2, events: int = 0) -> Any:
    return {
        "ready": True,
        "reasons": [],
        "unix_seconds": 1000.0,
        "started_unix_seconds": 10.0,
        "build": {"version": "0.1.0"},
        "now": BUSY,
        "in_flight": 3,
        "waiting": 7,
        "models": [
            {
                "name": name,
                "default_version": versions[0]["version"],
                "labels": [{"name": "stable", "version": versions[0]["version"], "next_version": 0}],
                "split": [],
                "versions": versions,
            }
            for name, versions in models
        ],
        "processes": [
            {
                "role": "worker",
                "index": f"a/{number}",
                "state": "serving",
                "pid": 100 + number,
                "cpus": "0-3",
                "threads": 4,
                "restarts": 0,
                "cpu_seconds": 12.34,
                "resident_bytes": 100 * 1024**2,
                "arena_bytes": 512,
            }
            for number in range(processes)
        ],
        "events": [
            {
                "unix_seconds": 0.0,
                "level": "error",
                "role": "worker a 0",
                "text": f"event {number}",
                "left_out": 7,
            }
            for number in range(events)
        ],
        "history": {
            "requests_per_second": [0.0, 50.0, 100.0],
            "p99_seconds": [None, 0.001, 0.002],
        },
    }


def drawn(document: Any, columns: int = 120, lines: int | None = None, note: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=columns, force_terminal=False)
    console.print(frame(document, target="host:8002", columns=columns, lines=lines, note=note))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_frame_says_what_the_document_says() -> None:
    text = "\n".join(drawn(status(("a", [version(1, now=BUSY)])), note="no answer for 3 s"))
    for words in (
        *("predictd ready  host:8002  version 0.1.0, up 16 min", "no answer for 3 s"),
        *(
            "OK 1234/s",
            "not OK 0.5/s",
            "p50 345 us",
            "p99 12.3 ms",
            "p99.9 2.5 s",
            "waiting 7",
            "in flight 3",
        ),
        *("memory 200 MiB", "▁▅█ highest 100", "highest 2 ms", "stable, default", "worker a/1"),
    ):
        assert words in text, words
    (row,) = (line for line in text.splitlines() if line.startswith("a "))
    assert row.split()[:5] == ["a", "1", "READY", "41", "3"]


def test_what_failed_comes_first_and_then_the_busiest() -> None:
    lines = drawn(
        status(
            ("idle", [version(1)]),
            ("busy", [version(1, now=BUSY)]),
            ("broken", [version(3, state="FAILED", reason="no such operator")]),
        )
    )
    names = [line.split()[0] for line in lines if line.startswith(("idle", "busy", "broken  "))]
    assert names == ["broken", "busy", "idle"]
    assert "broken version 3: no such operator" in lines


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (60, 24), (200, 50)])
def test_it_fits_the_screen_and_says_what_it_left_out(columns: int, lines: int) -> None:
    reason = "x" * 300
    many = status(
        *((f"model-{number}-{'long' * 20}", [version(1, reason=reason)]) for number in range(100)),
        processes=100,
        events=50,
    )
    shown = drawn(many, columns, lines)
    assert len(shown) <= lines
    assert all(len(line) <= columns for line in shown)
    assert any(line.startswith("and ") and line.endswith(" more versions") for line in shown)
    assert any(line.endswith(" more processes") for line in shown)


def test_a_column_that_is_shown_is_shown_whole_at_eighty() -> None:
    (row,) = (
        line for line in drawn(status(("a" * 70, [version(1, now=BUSY)])), 80) if line.startswith("aaa")
    )
    assert row.split()[-3:] == ["345", "us", "12.3"] or row.endswith("12.3 ms")


def test_nothing_that_is_sent_drives_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]\u202e"
    document = status((evil, [version(1, state=evil, reason=evil)]), events=1)
    document["events"][0] |= {"text": evil, "role": evil, "level": evil}
    document["processes"][0] |= {"index": evil, "state": evil, "cpus": evil}
    document["reasons"] = [evil]
    document["build"] = {"version": evil}
    text = "\n".join(drawn(document, 400))
    assert not any(character in text for character in "\x1b\x07\u202e")
    assert "[red]" in text


@contextmanager
def answering(code: int, body: bytes) -> Iterator[str]:
    """Somebody who answers everything so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (404, b"not found", "is no predictd that has /status.json"),
        (200, b"<html>", "is no predictd: /status.json is no JSON"),
        (200, b"[1]", "is no predictd that has /status.json"),
        (200, b"\xff\xfe", "is no predictd: /status.json is no JSON"),
    ],
)
def test_who_is_no_daemon_is_told_in_one_line(
    code: int, body: bytes, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(code, body) as address:
        assert run(monkeypatch, "top", "--http", address, "--once") == 1
    captured = capsys.readouterr()
    assert captured.err == f"predictd: what answers at {address} {why}\n"
    assert captured.out == ""


def test_the_port_of_grpc_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00")

        thread = threading.Thread(target=serve)
        thread.start()
        assert run(monkeypatch, "top", "--http", address, "--once") == 1
        thread.join()
    assert capsys.readouterr().err == f"predictd: what answers at {address} speaks no HTTP/1.1 without TLS\n"


def test_no_daemon_and_no_address_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "top", "--http", "127.0.0.1:1") == 1
    assert capsys.readouterr().err == "predictd: no daemon answers at 127.0.0.1:1: connection refused\n"
    assert run(monkeypatch, "top", "--http", "nowhere") == 2
    assert "has no port" in capsys.readouterr().err
