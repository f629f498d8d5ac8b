"""A server of the C half in the test's own process, with handlers that echo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio

from predictd.server.config.connections import ConnectionRules
from predictd.server.frontend.native.server import NativeServer, load_native
from tests.fixtures.processes import free_port

SERVICE = "test.Echo"
MESSAGE_BYTES_MAX = 1024 * 1024
UNREAD_BYTES_MAX = 2**20
RULES = ConnectionRules(
    max_age_ns=0,
    max_age_grace_ns=0,
    max_idle_ns=0,
    max_streams=100,
    max_connections=10_000,
    max_metadata_bytes=16 * 1024,
    handshake_timeout_ns=0,
    keepalive_time_ns=0,
    keepalive_timeout_ns=20 * 10**9,
    min_ping_interval_ns=10**10,
    max_ping_strikes=2,
)


@dataclass
class Served:
    """A server and a channel to it."""

    server: NativeServer
    address: str
    channel: Any
    seen: dict[str, Any]

    async def unary(self, message: bytes, method: str = "Unary", **options: Any) -> bytes:
        return bytes(await self.channel.unary_unary(f"/{SERVICE}/{method}")(message, **options))


def handlers(seen: dict[str, Any]) -> Any:
    """Of each kind one, and some that come to no good."""

    async def unary(request: bytes, context: Any) -> bytes:
        seen["metadata"] = context.invocation_metadata()
        seen["peer"] = context.peer()
        seen["identity"] = context.auth_context()
        seen["remaining"] = context.time_remaining()
        context.add_done_callback(lambda _: seen.setdefault("done", asyncio.Event()).set())
        return request

    async def trailers(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\0\1")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xff\0")))
        return request

    async def abort(request: bytes, context: Any) -> None:
        text = request.decode(errors="surrogateescape")
        await context.abort(grpc.StatusCode.NOT_FOUND, text, (("why", "because"),))

    async def broken(_: bytes, __: Any) -> bytes:
        raise ValueError("as asked")

    async def forever(_: bytes, __: Any) -> bytes:
        seen.setdefault("begun", asyncio.Event()).set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.setdefault("cancelled", asyncio.Event()).set()
            raise
        return b""

    async def many(request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def joined(requests: AsyncIterator[bytes], _: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def both(_: Any, context: Any) -> None:
        while isinstance(request := await context.read(), bytes):
            await context.write(request)

    async def refused_unread(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not even looked at")

    kinds: Any = grpc
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": kinds.unary_unary_rpc_method_handler(unary),
            "Trailers": kinds.unary_unary_rpc_method_handler(trailers),
            "Abort": kinds.unary_unary_rpc_method_handler(abort),
            "Broken": kinds.unary_unary_rpc_method_handler(broken),
            "Forever": kinds.unary_unary_rpc_method_handler(forever),
            "Many": kinds.unary_stream_rpc_method_handler(many),
            "Joined": kinds.stream_unary_rpc_method_handler(joined),
            "Both": kinds.stream_stream_rpc_method_handler(both),
            "RefusedUnread": kinds.stream_unary_rpc_method_handler(refused_unread),
        },
    )


@asynccontextmanager
async def serving(**rules: int) -> AsyncIterator[Served]:
    """Serve, and stop without mercy."""
    seen: dict[str, Any] = {}
    server = NativeServer(load_native(), replace(RULES, **rules), MESSAGE_BYTES_MAX, UNREAD_BYTES_MAX)
    server.add_generic_rpc_handlers((handlers(seen),))
    address = f"127.0.0.1:{free_port()}"
    server.add_insecure_port(address)
    await server.start()
    channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    try:
        yield Served(server, address, channel, seen)
    finally:
        await channel.close()
        await server.stop(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How a call fails."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it was answered with {answer!r:.100}")
