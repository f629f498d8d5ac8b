"""The server that main.py sees: handlers and interceptors as grpc.aio's has them, connections in C."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import resource
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc

from predictd.server.frontend.connections import connections_max
from predictd.server.frontend.native.context import Call, CallAbortedError
from predictd.server.frontend.native.sockets import bind

if TYPE_CHECKING:
    from predictd.native import Native
    from predictd.server.config.connections import ConnectionRules

# As of predictd/native: what an event is.
_BEGAN, _MESSAGE, _HALF_CLOSED, _WRITTEN, _GONE, _HOT, _EMPTY = range(1, 8)

_SHUTTING_DOWN = "the server is shutting down; requests without an answer were not accepted"

_log = logging.getLogger(__name__)


def load_native() -> Native:
    """The C half. Only where it is installed: the supervisor has looked."""
    return cast("Native", importlib.import_module("predictd.native").native)


@dataclass(slots=True)
class _Details:
    """What interceptors and services are asked with."""

    method: str
    invocation_metadata: Any


class NativeServer:
    """Serves gRPC. Runs on the event loop that it was made on, and one thread of C.

    Args:
        native: The C half.
        rules: What connections may do.
        message_bytes_max: Of a message, either way.
        unread_bytes_max: Of the answers to one connection.
        interceptors: As grpc.aio's.
        guard: Put around what reads events: those that are read and not handled are lost.
    """

    def __init__(
        self,
        native: Native,
        rules: ConnectionRules,
        message_bytes_max: int,
        unread_bytes_max: int,
        interceptors: Sequence[Any] = (),
        guard: Callable[[Callable[[], None]], Callable[[], None]] = lambda callback: callback,
    ) -> None:
        self._native = native
        self._message_bytes_max = message_bytes_max
        self._interceptors = tuple(interceptors)
        self._services: tuple[grpc.GenericRpcHandler, ...] = ()
        self._handlers: dict[str, Any] = {}
        self._calls: dict[int, Call] = {}
        self._empty = asyncio.Event()
        self.on_hot: Callable[[int, bytes], None] | None = None
        self.before_end: Callable[[], None] | None = None
        self.command = native.command
        self._loop = asyncio.get_running_loop()
        limits = {
            "message_bytes": message_bytes_max,
            "metadata_bytes": rules.max_metadata_bytes,
            "unread_bytes": unread_bytes_max,
            "connections": connections_max(rules, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            "streams": rules.max_streams,
            **{name: value for name, value in asdict(rules).items() if name != "max_streams"},
        }
        self._events_fd = native.start(limits)
        self._loop.add_reader(self._events_fd, guard(self._on_events))

    def add_generic_rpc_handlers(self, services: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add services."""
        self._services = (*self._services, *services)

    def add_insecure_port(self, address: str) -> None:
        """Listen without TLS.

        Raises:
            OSError: The address cannot be had.
        """
        self._listen(address, tls=False)

    def _listen(self, address: str, *, tls: bool) -> None:
        for listening in bind(address):
            try:
                self._native.listen(listening.fileno(), tls)
            except OSError:
                listening.close()
                raise
            listening.detach()

    def add_secure_port(self, address: str) -> None:
        """Listen with TLS, for which there has to be a certificate. Raises as `add_insecure_port` does."""
        self._listen(address, tls=True)

    def use_certificate(self, chain: bytes, key: bytes, client_ca: bytes = b"") -> None:
        """Show this certificate to those who connect from now on.

        Args:
            chain: The certificate and those up to its root, in PEM.
            key: Its private key, in PEM.
            client_ca: Who signs the certificates that clients have to show; empty where they need none.

        Raises:
            ValueError: They are of no use.
        """
        self._native.use_certificate(chain, key, client_ca or None)

    async def start(self) -> None:
        """Serve. It does since it listens: handlers are to be added before."""

    def close_streams(self) -> None:
        """End streams whose messages Python does not see, once what came is answered."""
        self._native.close_streams(_SHUTTING_DOWN.encode())

    async def stop(self, grace: float | None) -> None:
        """Accept nothing more, finish what was accepted, at most for so many seconds."""
        self._native.stop_listening()
        self._native.leave()
        try:
            async with asyncio.timeout(grace or 0):
                await self._empty.wait()
        except TimeoutError:
            self._native.cut()
            await self._empty.wait()
        if self.before_end is not None:
            self.before_end()
        self._loop.remove_reader(self._events_fd)
        self._native.stop()

    # Events ---------------------------------------------------------------------------------------------------

    def _on_events(self) -> None:
        calls = self._calls
        for event in self._native.events():
            kind, number = event[0], event[1]
            if kind == _BEGAN:
                self._began(*event[1:])
            elif kind == _HOT:
                if self.on_hot is not None:
                    self.on_hot(event[2], event[3])
            elif kind == _EMPTY:
                self._empty.set()
            elif kind == _GONE:
                calls.pop(number).on_gone()
            elif kind == _MESSAGE:
                calls[number].on_message(event[3], compressed=bool(event[2]))
            elif kind == _HALF_CLOSED:
                calls[number].on_half_closed()
            elif kind == _WRITTEN:
                calls[number].on_written(event[2])

    def _began(
        self, number: int, deadline_ns: int, path: bytes, fields: bytes, peer: bytes, identity: bytes
    ) -> None:
        call = Call(
            self._native,
            number,
            deadline_ns,
            path.decode("ascii", errors="replace"),
            fields,
            peer.decode(),
            identity,
            self._message_bytes_max,
        )
        self._calls[number] = call
        call.task = task = self._loop.create_task(self._serve(call))
        task.add_done_callback(partial(_ended, call))

    # Handlers -------------------------------------------------------------------------------------------------

    async def _handler(self, call: Call) -> Any:
        known = self._handlers.get(call.path)
        if known is not None and not self._interceptors:
            return known
        find: Callable[[Any], Any] = self._find
        for interceptor in reversed(self._interceptors):
            find = _intercepted(interceptor, find)
        return await find(_Details(call.path, call.invocation_metadata()))

    async def _find(self, details: _Details) -> Any:
        for service in self._services:
            handler = service.service(details)
            if handler is not None:
                self._handlers[details.method] = handler
                return handler
        return None

    async def _serve(self, call: Call) -> None:
        try:
            handler = await self._handler(call)
            if handler is None:
                call.end(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
                return
            call.deserialize = handler.request_deserializer
            call.serialize = handler.response_serializer
            await _run(handler, call)
        except CallAbortedError:
            # The abort itself has told the client.
            pass
        except asyncio.CancelledError:
            # Without a word from the client it is a handler's own doing.
            call.end(grpc.StatusCode.UNKNOWN, "Unexpected cancellation")
            raise
        except Exception as error:  # noqa: BLE001 - as grpc.aio: whatever it is, the client gets a status
            _log.exception("unexpected %s in %s", type(error).__name__, call.path)
            call.end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")


def _intercepted(interceptor: Any, find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda details: interceptor.intercept_service(find, details)


async def _run(handler: Any, call: Call) -> None:
    """Have a handler of whatever kind serve a call."""
    if handler.request_streaming:
        if handler.response_streaming:
            await _stream(handler.stream_stream, _requests(call), call)
        else:
            call.answer(await handler.stream_unary(_requests(call), call))
        return
    request = await call.read()
    if request is grpc.aio.EOF:
        call.end(grpc.StatusCode.INTERNAL, "the call ended without a request")
    elif handler.response_streaming:
        await _stream(handler.unary_stream, request, call)
    else:
        serving = handler.unary_unary(request, call)
        # As rpc.py: a request is not kept by those who wait for its answer.
        del request
        call.answer(await serving)


async def _stream(handle: Callable[[Any, Any], Any], request: Any, call: Call) -> None:
    serving = handle(request, call)
    del request
    if inspect.isasyncgen(serving):
        async for message in serving:
            await call.write(message)
    else:
        await serving
    call.finish()


async def _requests(call: Call) -> Any:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message


def _ended(call: Call, task: asyncio.Task[None]) -> None:
    # What ended it knows the frames that know the call: such a ring would keep the request until the next full
    # collection.
    call.task = None
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a call failed", exc_info=error)
