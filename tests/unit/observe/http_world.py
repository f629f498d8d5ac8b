"""An HTTP server on a free port with raw clients."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from predictd.server.observe.http import Handler, HttpServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def hello(request: Request) -> Response:
    return Response(f"{request.path}|{request.query}|{request.headers.get('accept', '')}".encode())


def listen(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen()
    return sock


class Client:
    """Raw bytes out, raw bytes in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """Everything until the server closes. Tests hang, and so fail, where it does not."""
        return await self.reader.read()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, headers = parse_head(head)
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(first.split(" ")[1]), headers


class World:
    """A server on a free port, and clients that are closed with it."""

    def __init__(self, server: HttpServer, address: tuple[Any, ...]) -> None:
        self.server = server
        self.address = address
        self._clients: list[Client] = []

    async def connect(self, buffer_bytes: int = 1 << 16) -> Client:
        client = Client(*await asyncio.open_connection(*self.address[:2], limit=buffer_bytes))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        client = await self.connect()
        client.send(data)
        return await client.rest()

    async def conversation_ended(self) -> None:
        await asyncio.wait(set(self.server._conversations), return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        await self.server.close()


@asynccontextmanager
async def world(
    routes: dict[str, Handler] | None = None, sock: socket.socket | None = None, **options: Any
) -> AsyncIterator[World]:
    sock = sock or listen()
    address = sock.getsockname()
    server = HttpServer(routes or {"/hello": hello}, **options)
    await server.serve(sock)
    made = World(server, address)
    try:
        yield made
    finally:
        await made.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test, and fail for anything that the event loop could only report."""
    reports: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        await asyncio.wait_for(main(), 30)

    asyncio.run(guarded())
    assert not reports
