"""A server of grpcio's to put load on, and who counts what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from typing_extensions import override

from predictd.server.bench.access import PLAIN, Access
from predictd.server.bench.dialects import dialect
from predictd.server.bench.loops import ClosedLoop

SECONDS = 30.0
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Counting:
    """A recorder of so many calls."""

    def __init__(self, bodies: int, calls: int) -> None:
        self._bodies = bodies
        self._calls = calls
        self._begun = 0
        self.answers: list[tuple[int, bytes]] = []
        self.latencies_ns: list[int] = []
        self.late_ns: list[int] = []
        self.failures: list[str] = []

    def next_index(self) -> int:
        self._begun += 1
        return (self._begun - 1) % self._bodies

    def over(self, _now_ns: int) -> bool:
        return self._begun >= self._calls

    def answered(self, index: int, started_ns: int, ended_ns: int, answer: bytes) -> None:
        self.answers.append((index, answer))
        self.latencies_ns.append(ended_ns - started_ns)

    def failed(self, reason: str) -> None:
        self.failures.append(reason)

    def sent(self, late_ns: int) -> None:
        self.late_ns.append(late_ns)


Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, unary: Behaviour) -> None:
        self._unary = unary

    @override
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return (self._unary(request, context) for request in requests)

        if "Stream" in str(details.method):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)


@contextmanager
def serving(
    unary: Behaviour, *options: tuple[str, int], credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Run a server of grpcio's; gives its address."""
    server = grpc.server(ThreadPoolExecutor(8), options=[*UNLIMITED, *options])
    server.add_generic_rpc_handlers((_Handlers(unary),))
    anywhere = "127.0.0.1:0"
    port = (
        server.add_insecure_port(anywhere)
        if credentials is None
        else server.add_secure_port(anywhere, credentials)
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
    """Answer what was asked."""
    return request


def closed(
    target: str,
    bodies: list[bytes],
    calls: int,
    shares: list[int],
    api: str = "predictd",
    access: Access = PLAIN,
    **more: Any,
) -> Counting:
    """Put a closed loop on a server until so many calls have begun, and all of them ended."""
    recorder = Counting(len(bodies), calls)

    async def drive() -> None:
        api_of = dialect(api, **{"streams": False, **more})
        loop = ClosedLoop(target, api_of, bodies, recorder, shares, access=access)
        try:
            await asyncio.wait_for(loop.finished, SECONDS)
        finally:
            loop.close()

    asyncio.run(drive())
    return recorder
