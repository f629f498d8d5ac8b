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

from tests.bench.payload import Payload
from tests.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Ready(msgspec.Struct):
    """Said once: everything is imported."""


class Command(msgspec.Struct, kw_only=True):
    """Put load on `target`; answers count between two points of CLOCK_MONOTONIC.

    Attributes:
        in_flight: Of each connection, in a closed loop.
        rate: Of all processes together in an open loop, a second; 0 for a closed one. In an open loop refusals are no
            errors: what arrives in a burst may find a queue full.
        deadline_ns: Of each call of an open loop; 0 for none.
        part: Which of the processes this is.
        parts: How many there are.
        start_ns: From when on an open loop sends.
    """

    target: str
    payload: str
    connections: int
    in_flight: int
    rate: float
    deadline_ns: int
    part: int
    parts: int
    start_ns: int
    begin_ns: int
    end_ns: int
    verify_every: int
    times: str


class Outcome(msgspec.Struct):
    """What one process counted.

    The command's file holds three rows: which request was answered, its latency, and its end, in nanoseconds.
    """

    completed: int
    total: int
    verified: int
    wrong: int
    refused: int
    late_ns: int
    errors: dict[str, int]


class Drive(Protocol):
    """A load generator."""

    def __call__(self, command: Command, tally: Tally) -> Awaitable[None]: ...


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
    may_refuse = command.rate > 0
    tally = Tally(payload, command.begin_ns, command.end_ns, command.verify_every, may_refuse=may_refuse)
    await drive(command, tally)
    np.save(command.times, np.array([tally.indexes, tally.latencies_ns, tally.ends_ns], np.int64))
    return Outcome(
        tally.completed,
        tally.total,
        tally.verified,
        tally.wrong,
        tally.refused,
        tally.late_ns,
        dict(tally.errors),
    )


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
