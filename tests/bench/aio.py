"""A load generator on the public gRPC client: grpc.aio on uvloop, raw bytes in and out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from tests.bench.payload import METHOD

if TYPE_CHECKING:
    from tests.bench.client import Command
    from tests.bench.tally import Tally

_DRAIN_SECONDS = 10.0
_OPTIONS = [
    # Else channels to one target share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


async def _caller(call: grpc.aio.UnaryUnaryMultiCallable[Any, Any], tally: Tally) -> None:
    bodies = tally.payload.bodies
    while not tally.over(started := time.monotonic_ns()):
        index = tally.next_index()
        try:
            answer = await call(bodies[index], timeout=tally.remaining_seconds() + _DRAIN_SECONDS)
        except grpc.aio.AioRpcError as error:
            tally.failed(f"{error.code().name}: {error.details()}")
        else:
            tally.answered(index, started, time.monotonic_ns(), answer)


async def drive(command: Command, tally: Tally) -> None:
    """Keep `in_flight` calls going on each connection until the window ends and the last is answered."""
    if command.rate:
        raise ValueError("there is no open loop of this client")
    channels = [grpc.aio.insecure_channel(command.target, _OPTIONS) for _ in range(command.connections)]
    try:
        calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
            channel.unary_unary(METHOD) for channel in channels
        ]
        await asyncio.gather(*[_caller(call, tally) for call in calls for _ in range(command.in_flight)])
    finally:
        for channel in channels:
            await channel.close()
