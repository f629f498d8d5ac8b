"""A small HTTP/1.1 server for operators: metrics, health, status. h11 is the protocol, asyncio the sockets.

Theory of operation. Each connection is one task that reads a request, answers it and starts over. Nothing
that a client does may cost more than a bound: the size of a header, the time until it is complete, the time
in which an answer is read, the number of connections. No request has a body, so one that announces a body is
refused unread. After a refusal the connection ends, gently: what the client still sends is read for a moment,
since closing a socket with unread data resets the connection and may take the refusal away before it is read.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import h11

if TYPE_CHECKING:
    import socket

_HEADER_BYTES_MAX = 16 * 1024
_READ_BYTES = 16 * 1024
_LINGER_BYTES = 1024 * 1024
_LINGER_SECONDS = 1.0
_METHODS = ("GET", "HEAD")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its connection.

    Attributes:
        method: "GET" or "HEAD"; a handler answers both alike.
        path: As sent, without the query.
        query: What follows the question mark, empty if nothing does.
        headers: By lower-case name; repeated ones joined by a comma.
        certificate: What the client showed of itself and was verified, as `ssl.SSLSocket.getpeercert` has it.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    certificate: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Length, date and connection headers are added when it is sent."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves GET and HEAD on one listening socket.

    Args:
        routes: A handler for each path.
        idle_timeout_seconds: How long a client may take for a whole header, or to read an answer.
        connections_max: Connections beyond are refused with 503.
        tls: Encrypts; asked again for each connection.
    """

    def __init__(
        self,
        routes: Mapping[str, Handler],
        *,
        idle_timeout_seconds: float = 30.0,
        connections_max: int = 128,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._tls = tls
        self._routes = routes
        self._idle_timeout_seconds = idle_timeout_seconds
        self._connections_max = connections_max
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.Task[None], _Conversation] = {}

    async def serve(self, sock: socket.socket) -> None:
        """Start to answer on a bound stream socket, and return. The server closes the socket in the end."""
        if self._server is not None:
            raise RuntimeError("serve() was called before. This is a bug.")
        self._server = await asyncio.start_server(self._accepted, sock=sock, limit=_READ_BYTES)

    async def close(self, grace_seconds: float = 1.0) -> None:
        """Stop accepting, end idle connections at once and busy ones once they are answered.

        Args:
            grace_seconds: How long the busy ones have.
        """
        if self._server is not None:
            self._server.close()
        for conversation in self._conversations.values():
            conversation.end()
        tasks = set(self._conversations)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tls is not None:
            # What comes now is for the handshake.
            cast("asyncio.Transport", writer.transport).pause_reading()
        tls = None if self._tls is None else self._tls()
        conversation = _Conversation(reader, writer, self._routes, self._idle_timeout_seconds, tls)
        if len(self._conversations) >= self._connections_max:
            conversation.refuse()
            return
        task = asyncio.get_running_loop().create_task(conversation.run())
        self._conversations[task] = conversation
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._conversations[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("an HTTP connection failed", exc_info=error)


class _Conversation:
    """One connection, from its first request to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        routes: Mapping[str, Handler],
        timeout_seconds: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = tls
        self._reader = reader
        self._writer = writer
        self._routes = routes
        self._timeout_seconds = timeout_seconds
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_BYTES_MAX)
        self._reading: asyncio.Timeout | None = None
        self._ending = False
        self._certificate: Mapping[str, Any] = {}

    async def run(self) -> None:
        """Answer requests until either side has enough."""
        try:
            await self._begin()
            while await self._exchange():
                self._protocol.start_next_cycle()
            await self._close()
        except OSError:
            # The client left, or is too slow to be served: its affair, and nothing is left to tell it.
            pass
        finally:
            self._writer.transport.abort()

    async def _begin(self) -> None:
        # Here and not in asyncio's server, which would let any number of clients begin a handshake.
        if self._tls is not None:
            await self._writer.start_tls(self._tls, ssl_handshake_timeout=self._timeout_seconds)
            self._certificate = self._writer.get_extra_info("peercert") or {}
        # With no room to buffer, drain() returns when all was handed to the kernel: a client that does not
        # read is noticed by the time-out there and leaves nothing behind in a closing transport.
        self._writer.transport.set_write_buffer_limits(high=0)

    def end(self) -> None:
        """Finish what is being answered, and nothing else."""
        self._ending = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    def refuse(self) -> None:
        """Say that there are too many connections, without waiting for anything."""
        if self._tls is not None:
            self._writer.transport.abort()
            return
        response = _text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        self._writer.write(self._encode(response, with_body=True, last=True))
        self._writer.close()

    async def _exchange(self) -> bool:
        """Read and answer one request. Returns whether another one may follow."""
        try:
            event = await self._next_request()
        except h11.RemoteProtocolError as error:
            await self._send(_text(error.error_status_hint, "malformed request"), with_body=True, last=True)
            await self._linger()
            return False
        if event is None:
            return False
        response, refused = await self._answer(event)
        last = refused or self._ending
        await self._send(response, with_body=event.method != b"HEAD", last=last)
        if refused:
            await self._linger()
        return not last and self._protocol.our_state is h11.DONE

    async def _next_request(self) -> h11.Request | None:
        """The next complete header, or None when the client or the server wants no more."""
        if self._ending:
            return None
        try:
            async with asyncio.timeout(self._timeout_seconds) as self._reading:
                while (event := self._protocol.next_event()) is h11.NEED_DATA:
                    self._protocol.receive_data(await self._reader.read(_READ_BYTES))
        except TimeoutError:
            return None
        finally:
            self._reading = None
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, event: h11.Request) -> tuple[Response, bool]:
        """The response to a request, and whether it was refused with its body unread."""
        headers = _headers(event)
        if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
            return _text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no request body is accepted here"), True
        self._protocol.next_event()  # the end of a request without a body
        method, (path, query) = event.method.decode("ascii"), _split(event.target)
        handler = self._routes.get(path)
        if handler is None:
            return _text(HTTPStatus.NOT_FOUND, "not found"), False
        if method not in _METHODS:
            allow = (("Allow", ", ".join(_METHODS)),)
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", allow), False
        try:
            return await handler(Request(method, path, query, headers, self._certificate)), False
        except Exception:
            _logger.exception("the handler of %s failed", path)
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error"), False

    async def _send(self, response: Response, *, with_body: bool, last: bool) -> None:
        self._writer.write(self._encode(response, with_body=with_body, last=last))
        async with asyncio.timeout(self._timeout_seconds):
            await self._writer.drain()

    def _encode(self, response: Response, *, with_body: bool, last: bool) -> bytes:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        if last:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        events: list[h11.Event] = [
            h11.Response(status_code=response.status, headers=headers, reason=reason.encode())
        ]
        if with_body:
            events.append(h11.Data(data=response.body))
        events.append(h11.EndOfMessage())
        return b"".join(data for event in events if (data := self._protocol.send(event)))

    async def _linger(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and (data := await self._reader.read(_READ_BYTES)):
                    left -= len(data)

    async def _close(self) -> None:
        self._writer.close()
        # TLS says goodbye, and waits for the other side to do so, too.
        async with asyncio.timeout(_LINGER_SECONDS):
            await self._writer.wait_closed()


def _text(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(f"{message}\n".encode(), status, headers=headers)


def _headers(event: h11.Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a request target, which a proxy may send as a whole URL."""
    text = target.decode("latin-1")
    if text.startswith(("http://", "https://")):
        text = "/" + text.split("://", 1)[1].partition("/")[2]
    path, _, query = text.partition("?")
    return path, query
