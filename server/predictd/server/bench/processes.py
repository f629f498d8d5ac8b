"""The parent's side of the processes of the load generator."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from predictd.server.bench.messages import Answer, Command, Done, Interval, Ready, Stop
from predictd.server.measure.engine_process import MeasureError

if TYPE_CHECKING:
    from types import TracebackType

_MODULE = "predictd.server.bench.generator"
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_DRAIN_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16
_DECODER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


class _Process:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A terminal's interrupt is for the parent alone, which ends everything in order. Not a new session:
            # the kernel may schedule those as one (autogroup), and the parent's nice value would not count.
            process_group=0,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("a process without pipes. This is a bug.")
        self._commands, self._answers = self._process.stdin, self._process.stdout
        self._heard = b""

    @property
    def descriptor(self) -> int:
        return self._answers.fileno()

    def tell(self, command: Command) -> None:
        try:
            self._commands.write(msgspec.json.encode(command) + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def heard(self) -> list[Answer]:
        """What it said since; there must be something to read."""
        data = os.read(self.descriptor, _CHUNK_BYTES)
        if not data:
            raise self._ended()
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [_DECODER.decode(line) for line in lines]

    def _ended(self) -> MeasureError:
        return MeasureError(f"a process of the load generator ended with status {self._process.wait()}")

    def stop(self) -> None:
        try:
            self._commands.close()
            self._process.wait(_STOP_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self._answers.close()


class Generators:
    """Processes that live over all measurements.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._processes: list[_Process] = []
        try:
            for _ in range(count):
                self._processes.append(_Process())
            self._await(lambda answer: isinstance(answer, Ready), _START_SECONDS)
        except BaseException:
            self.close()
            raise

    def drive(
        self, commands: Sequence[Command], enough: Callable[[Interval], bool], seconds_max: float
    ) -> list[Done]:
        """Put load on until there is enough of it.

        Args:
            commands: One for each process that takes part.
            enough: Told of each interval of each process; says whether to end.
            seconds_max: How long an interval may take to come.

        Returns:
            How each of them ended.
        """
        used = self._processes[: len(commands)]
        for process, command in zip(used, commands, strict=True):
            process.tell(command)
        left, done = set(used), []
        stopping = False
        while left:
            for process, answer in self._next(left, seconds_max + _DRAIN_SECONDS * stopping):
                if isinstance(answer, Done):
                    done.append(answer)
                    left.discard(process)
                elif isinstance(answer, Interval) and not stopping and enough(answer):
                    stopping = True
                    for each in used:
                        each.tell(Stop(drain_seconds=_DRAIN_SECONDS))
        return done

    def _await(self, wanted: Callable[[Answer], bool], seconds: float) -> None:
        left = set(self._processes)
        while left:
            for process, answer in self._next(left, seconds):
                if wanted(answer):
                    left.discard(process)

    def _next(self, among: set[_Process], seconds: float) -> list[tuple[_Process, Answer]]:
        readable = select.select([each.descriptor for each in among], [], [], seconds)[0]
        if not readable:
            raise MeasureError(f"a process of the load generator said nothing for {seconds:.0f} s")
        talking = [each for each in among if each.descriptor in readable]
        return [(process, answer) for process in talking for answer in process.heard()]

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
