"""A process of the load generator: takes a command a line, puts load on a server, tells what it counted.

It imports no grpc: a process with fewer threads is a steadier clock.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from predictd.server.bench.dialects import dialect
from predictd.server.bench.loops import ClosedLoop, OpenLoop
from predictd.server.bench.messages import Answer, Command, Done, Drive, Payload, Ready, Stop
from predictd.server.bench.recorder import IntervalRecorder
from predictd.server.bench.schedule import arrivals, shared
from predictd.server.bench.timer import Timer

_DECODER: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_SCHEDULING = Path("/proc/thread-self/schedstat")


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def _loop(command: Drive, payload: Payload, recorder: IntervalRecorder) -> ClosedLoop | OpenLoop:
    api = dialect(command.api, streams=command.streams)
    if command.callers:
        shares = [share for share in shared(command.callers, command.connections) if share]
        return ClosedLoop(
            command.target, api, payload.bodies, recorder, shares, command.timeout, command.access
        )
    times = arrivals(command.arrivals, command.rate, command.begin_ns, part=command.part, parts=command.parts)
    return OpenLoop(
        command.target,
        api,
        payload.bodies,
        recorder,
        command.connections,
        times,
        command.in_flight_max,
        command.timeout,
        command.access,
    )


def waited_for_cpu_seconds() -> float:
    """How long this thread could have run so far while others had the CPU; 0 where the kernel does not tell."""
    try:
        return int(_SCHEDULING.read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


class _Reporting:
    """Ends the intervals on time, and sees how late it is woken."""

    def __init__(self, command: Drive, recorder: IntervalRecorder, loop: ClosedLoop | OpenLoop) -> None:
        self._command = command
        self._recorder = recorder
        self._loop = loop
        self._number = 0
        self._cpu_seconds = time.process_time()
        self._waited_seconds = waited_for_cpu_seconds()
        self._timer = Timer(self._tick)
        self._timer.wake_at(self._end_ns())

    def _end_ns(self) -> int:
        return self._command.begin_ns + (self._number + 1) * self._command.interval_ns

    def _tick(self) -> None:
        lag_ns = time.monotonic_ns() - self._end_ns()
        before, self._cpu_seconds = self._cpu_seconds, time.process_time()
        used_seconds = self._cpu_seconds - before
        before, self._waited_seconds = self._waited_seconds, waited_for_cpu_seconds()
        waited_seconds = self._waited_seconds - before
        loop, number = self._loop, self._number
        _say(self._recorder.take(number, loop.in_flight, lag_ns, used_seconds, waited_seconds, loop.failure))
        self._number += 1
        self._timer.wake_at(self._end_ns())

    def close(self) -> None:
        self._timer.close()


async def _drive(command: Drive, payload: Payload, lines: asyncio.StreamReader) -> bool:
    """Put load on until told to stop. Returns whether there may be another command."""
    recorder = IntervalRecorder(payload)
    loop = _loop(command, payload, recorder)
    reporting = _Reporting(command, recorder, loop)
    try:
        # Whatever happens, the intervals tell it, and the parent says when it has had enough.
        line = await lines.readline()
        stop = _DECODER.decode(line) if line else None
        recorder.stop()
        loop.settle()
        await asyncio.wait((loop.finished,), timeout=stop.drain_seconds if isinstance(stop, Stop) else 0.0)
    finally:
        reporting.close()
        loop.close()
    _say(Done(unanswered=0 if loop.failure else loop.in_flight))
    return bool(line)


def _read(path: str) -> Payload:
    return msgspec.msgpack.decode(Path(path).read_bytes(), type=Payload)


async def _serve() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    payload, read = Payload([], [], 0), ""
    _say(Ready())
    while line := await lines.readline():
        command = _DECODER.decode(line)
        if not isinstance(command, Drive):
            raise TypeError("told to stop what does not run. This is a bug.")
        if command.payload != read:
            payload = _read(command.payload)
            read = command.payload
        gc.collect()
        gc.freeze()
        if not await _drive(command, payload, lines):
            return


def main() -> None:
    """Serve commands until standard input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
