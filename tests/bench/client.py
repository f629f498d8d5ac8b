"""A client process: takes one command a line, puts load on a server, answers with what it counted."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np
import uvloop

from tests.bench.payload import METHOD, Payload
from tests.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Ready(msgspec.Struct):
    """Said once: everything is imported."""


class Command(msgspec.Struct):
    """Put load on `target`; answers count between two points of CLOCK_MONOTONIC."""

    target: str
    payload: str
    connections: int
    in_flight: int
    begin_ns: int
    end_ns: int
    verify_every: int
    times: str


class Outcome(msgspec.Struct):
    """What one process counted. The command's file holds two rows: latencies and ends, in nanoseconds."""

    completed: int
    total: int
    verified: int
    wrong: int
    errors: dict[str, int]


class Drive(Protocol):
    """A load generator."""

    def __call__(
        self, target: str, method: str, connections: int, in_flight: int, tally: Tally
    ) -> Awaitable[None]: ...


def _drive(kind: str) -> Drive:
    # Each process imports only what it needs: a wire client without grpc has fewer threads.
    if kind == "wire":
        from tests.bench import wire

        return wire.drive
    from tests.bench import aio

    return aio.drive


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


async def _run(drive: Drive, command: Command, payload: Payload) -> Outcome:
    tally = Tally(payload, command.begin_ns, command.end_ns, command.verify_every)
    await drive(command.target, METHOD, command.connections, command.in_flight, tally)
    np.save(command.times, np.array([tally.latencies_ns, tally.ends_ns], np.int64))
    return Outcome(tally.completed, tally.total, tally.verified, tally.wrong, dict(tally.errors))


def main() -> None:
    """Serve commands until standard input ends."""
    drive = _drive(sys.argv[1])
    _say(Ready())
    payloads: dict[str, Payload] = {}
    # One loop for all commands: grpc.aio binds itself to the first one.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            command = msgspec.json.decode(line, type=Command)
            if command.payload not in payloads:
                payloads[command.payload] = Payload.read(Path(command.payload))
                gc.collect()
                gc.freeze()
            _say(runner.run(_run(drive, command, payloads[command.payload])))


if __name__ == "__main__":
    main()
