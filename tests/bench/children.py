"""Child processes that take one JSON line at a time and answer with one."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

Answer = TypeVar("Answer")
_STOP_SECONDS = 5.0
_ROOT = Path(__file__).parents[2]


class ChildError(Exception):
    """A helper process of the benchmark did not do its work."""


def environment() -> dict[str, str]:
    """The environment of every child: ours, without what would configure a daemon, and with telemetry off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTD_")}
    return {**kept, "ORT_DISABLE_TELEMETRY": "1"}


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))


class Child:
    """`python -m MODULE ARGUMENTS`, which ends by itself when its standard input does."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        cpus: Sequence[int] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._name = module.rpartition(".")[2]
        mask = [] if cpus is None else ["taskset", "--cpu-list", ",".join(map(str, cpus))]
        self._process = subprocess.Popen(
            [*mask, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Control-C reaches the benchmark alone, which stops its children in order.
            process_group=0,
            # Where the tests are found even if the current folder is not searched.
            env={**environment(), **(variables or {}), "PYTHONPATH": _python_path()},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: msgspec.Struct) -> None:
        """Send one command."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(msgspec.json.encode(message) + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"{self._name} ended with status {self._process.wait()}") from None

    def hear(self, kind: type[Answer], timeout_seconds: float) -> Answer:
        """Wait for one answer."""
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout_seconds)[0]:
            raise ChildError(f"{self._name} did not answer within {timeout_seconds:.0f} s")
        line = stdout.readline()
        if not line:
            raise ChildError(f"{self._name} ended with status {self._process.wait()}")
        return msgspec.json.decode(line, type=kind)

    def stop(self) -> None:
        """End the process, by force if it does not end by itself."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before us
            stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
