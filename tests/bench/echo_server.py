"""The yardstick: a grpc.aio server on uvloop whose one handler returns the request's bytes.

It does nothing that a server could leave out: what it reaches is the most that grpc.aio gives.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import grpc
import msgspec
import uvloop

from tests.bench.children import Child
from tests.bench.payload import METHOD

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_START_SECONDS = 20.0


class Listening(msgspec.Struct):
    """What a process of the server says when it accepts calls."""

    port: int


class EchoServer:
    """Processes on one port, over which the kernel spreads connections."""

    def __init__(self, processes: int, answer_bytes: int) -> None:
        self._children: list[Child] = []
        self._stack = ExitStack()
        port = 0
        try:
            for _ in range(processes):
                child = self._stack.enter_context(Child(__name__, str(port), str(answer_bytes)))
                self._children.append(child)
                port = child.hear(Listening, _START_SECONDS).port
        except BaseException:
            self._stack.close()
            raise
        self.target = f"127.0.0.1:{port}"

    def roles(self) -> dict[str, list[int]]:
        """Process ids by role."""
        return {"front ends": [child.pid for child in self._children]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _handler(answer_bytes: int) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Any]:
    padding = bytes(answer_bytes)

    async def echo(request: bytes, _: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        # Of a long request nothing is copied where it is as long as its answer.
        return request[:answer_bytes] + padding[: answer_bytes - min(len(request), answer_bytes)]

    return echo


async def _serve(port: int, answer_bytes: int) -> None:
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", -1)],
    )
    service, _, method = METHOD.lstrip("/").partition("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_handler(answer_bytes))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    gc.collect()
    gc.freeze()
    sys.stdout.buffer.write(msgspec.json.encode(Listening(bound)) + b"\n")
    sys.stdout.buffer.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    assert hasattr(socket, "SO_REUSEPORT")
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
