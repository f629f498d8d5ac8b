"""The parent's side of processes that take a command a line and answer with lines, JSON both ways."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import msgspec

from predictd.server.measure.engine_process import MeasureError

if TYPE_CHECKING:
    from types import TracebackType

Answer = TypeVar("Answer")

_STOP_SECONDS = 5.0
_CHUNK_BYTES = 1 << 16


class LineProcess(Generic[Answer]):
    """`python -m MODULE`, which ends by itself when its standard input does.

    Args:
        module: What it runs.
        name: For messages.
        decode: Makes an answer of a line.
    """

    def __init__(self, module: str, name: str, decode: Callable[[bytes], Answer]) -> None:
        self._name = name
        self._decode = decode
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A terminal's interrupt is for the parent alone, which ends everything in order. Not a new session:
            # the kernel may schedule those as one (autogroup), and the parent's nice value would not count.
            process_group=0,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("a process without pipes. This is a bug.")
        self._commands, self._answers = self._process.stdin, self._process.stdout
        self._rest = b""
        self._unread: deque[Answer] = deque()

    @property
    def descriptor(self) -> int:
        """Readable when it says something."""
        return self._answers.fileno()

    def tell(self, command: msgspec.Struct) -> None:
        """Send a command. Raises MeasureError if the process ended."""
        try:
            self._commands.write(msgspec.json.encode(command) + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def heard(self) -> list[Answer]:
        """What it said since; there must be something to read. Raises MeasureError if the process ended."""
        data = os.read(self.descriptor, _CHUNK_BYTES)
        if not data:
            raise self._ended()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._decode(line) for line in lines]

    def hear(self, seconds: float) -> Answer:
        """Wait for its next answer.

        Raises:
            TimeoutError: It says nothing for so long.
            MeasureError: The process ended.
        """
        while not self._unread:
            if not select.select([self.descriptor], [], [], seconds)[0]:
                raise TimeoutError(f"{self._name} said nothing for {seconds:.0f} s")
            self._unread.extend(self.heard())
        return self._unread.popleft()

    def _ended(self) -> MeasureError:
        return MeasureError(f"{self._name} ended with status {self._process.wait()}")

    def stop(self) -> None:
        """End the process, by force if it does not end by itself."""
        try:
            self._commands.close()
            self._process.wait(_STOP_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self._answers.close()


class LineProcesses(Generic[Answer]):
    """Several of them, which live over all measurements.

    Args:
        count: How many.
        module: What each of them runs.
        name: Of one, for messages.
        decode: Makes an answer of a line.
    """

    def __init__(self, count: int, module: str, name: str, decode: Callable[[bytes], Answer]) -> None:
        self._processes: list[LineProcess[Answer]] = []
        try:
            for _ in range(count):
                self._processes.append(LineProcess(module, name, decode))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End them all."""
        for process in self._processes:
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
