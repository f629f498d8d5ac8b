"""The parent's side of a process that runs one engine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from predictd.server.config.lane import LaneConfig
from predictd.server.launch.environment import child_environment
from predictd.server.launch.requests import ChildPlan
from predictd.server.launch.spawn import spawn
from predictd.server.measure.messages import Command, Failed, Load, Loaded, Reply

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T", bound=Reply)

_MODULE = "predictd.server.measure.engine_child"
_STOP_SECONDS = 5.0
_CHUNK_BYTES = 1 << 16
_DECODER = msgspec.json.Decoder[Reply](Reply)


class MeasureError(Exception):
    """A model cannot be measured. One line that names it."""


class EngineProcess:
    """One engine in a process of its own, with the mask, environment and options of a worker.

    Args:
        label: Of the model, for messages.
        lane: What a worker would be told.
        plan: Where and how a worker would run.
        limit_seconds: How long loading, or a run, may take.
    """

    def __init__(self, label: str, lane: LaneConfig, plan: ChildPlan, limit_seconds: float) -> None:
        self._label = label
        self._lane = lane
        self._limit_seconds = limit_seconds
        self._heard = bytearray()
        self._ours, theirs = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = spawn(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(os.getpid())],
                environment=child_environment(os.environ, plan.environment),
                cpus=plan.cpus,
                pass_fds=[theirs.fileno()],
                numa_nodes=plan.numa_nodes,
            )
        except BaseException:
            self._ours.close()
            raise
        finally:
            theirs.close()

    def begin_load(
        self, instances: int, cache: Path | None, cache_limit_bytes: int, *, profile: bool
    ) -> None:
        """Have the model loaded; `end_load` says what came of it, so that several can load at once."""
        self.tell(
            Load(
                lane=self._lane,
                instances=instances,
                cache_directory="" if cache is None else str(cache),
                cache_limit_bytes=cache_limit_bytes,
                profile=profile,
            )
        )

    def end_load(self) -> Loaded:
        """Wait until the model is loaded. Raises MeasureError if it cannot be."""
        return self.hear(Loaded)

    def ask(self, command: Command, kind: type[T], seconds: float = 0.0) -> T:
        """Say something and wait for the answer, which takes this many seconds by itself.

        Raises:
            MeasureError: The engine failed, or the process died.
        """
        self.tell(command)
        return self.hear(kind, seconds)

    def tell(self, command: Command) -> None:
        """Say something, and do not wait for the answer."""
        # Whoever listens then hears of the end.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._ours.sendall(msgspec.json.encode(command) + b"\n")

    def hear(self, kind: type[T], seconds: float = 0.0) -> T:
        """Wait for an answer of this kind, which takes this many seconds by itself.

        Raises:
            MeasureError: The engine failed, or the process died.
        """
        reply = _DECODER.decode(self._line(time.monotonic() + seconds + self._limit_seconds))
        if isinstance(reply, Failed):
            raise MeasureError(_named(self._label, reply.reason))
        if not isinstance(reply, kind):
            raise TypeError(f"{type(reply).__name__} in answer, not {kind.__name__}. This is a bug.")
        return reply

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._heard:
            self._ours.settimeout(max(0.001, until - time.monotonic()))
            try:
                chunk = self._ours.recv(_CHUNK_BYTES)
            except TimeoutError:
                limit = f"{self._limit_seconds:g} s"
                raise MeasureError(f"{self._label}: the engine did not answer within {limit}") from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise MeasureError(f"{self._label}: the engine's process {_end(self._ended())}")
            self._heard += chunk
        line, _, rest = bytes(self._heard).partition(b"\n")
        self._heard = bytearray(rest)
        return line

    def stop(self) -> None:
        """End the process, by force if it does not end by itself."""
        self._ours.close()
        self._ended()

    def _ended(self) -> int:
        """Wait for the end of a process that nobody talks to any more."""
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # It may be in the middle of a long run.
            self._process.kill()
        self.stop()


def _named(label: str, reason: str) -> str:
    """The reason with the model's name, unless it begins with it."""
    return reason if reason.startswith(label) else f"{label}: {reason}"


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
