"""Starts and stops the daemon as a user does: one command, one ready file, one SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

import msgspec

from tests.bench import proc
from tests.bench.children import environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.002
_TAIL_CHARACTERS = 4000


class DaemonError(Exception):
    """The daemon did not start or did not stop. The message ends with what it printed."""


class _Addresses(msgspec.Struct):
    grpc: str
    http: str


class Daemon:
    """A running `predictd serve`.

    Attributes:
        ready_seconds: From exec to the ready file.
        target: Where gRPC listens.
        http: Where the metrics are.
    """

    def __init__(self, model: Path, folder: Path, arguments: Sequence[str]) -> None:
        self._log = folder / f"daemon-{time.monotonic_ns()}.log"
        ready_file = self._log.with_suffix(".ready")
        command = [
            *(sys.executable, "-m", "predictd.server.cli.main", "serve", str(model)),
            *("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file", str(ready_file)),
            *("--cache-dir", str(folder / "cache")),
            *arguments,
        ]
        with self._log.open("wb") as log:
            started = time.monotonic()
            # In the scratch folder no predictd.toml is found.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=folder,
                process_group=0,
            )
        try:
            addresses = self._wait(ready_file, started + _START_SECONDS)
            self.ready_seconds = time.monotonic() - started
        except BaseException:
            self._end(signal.SIGTERM)
            raise
        self.target = addresses.grpc
        self.http = addresses.http

    def roles(self) -> dict[str, list[int]]:
        """Process ids by role."""
        return proc.daemon_roles(self._process.pid)

    def stop(self) -> None:
        """SIGTERM, and the daemon must exit with 0."""
        if (status := self._end(signal.SIGTERM)) != 0:
            raise self._error(f"exited with status {status} after SIGTERM")

    def _end(self, by: signal.Signals) -> int:
        """Its children end when the supervisor does, so a second signal is never needed for them."""
        self._process.send_signal(by)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return self._end(signal.SIGKILL)

    def _wait(self, ready_file: Path, until: float) -> _Addresses:
        while not ready_file.exists():
            if self._process.poll() is not None:
                raise self._error(f"exited with status {self._process.returncode} before it was ready")
            if time.monotonic() > until:
                raise self._error(f"was not ready within {_START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        return msgspec.json.decode(ready_file.read_bytes(), type=_Addresses)

    def _error(self, what: str) -> DaemonError:
        output = self._log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
        return DaemonError(f"the daemon {what}; it printed:\n{output}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
