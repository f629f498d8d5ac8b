"""How many requests one client may have at once, where that is limited: clients are told apart by their address.

The address is known where a call comes in, and a request only where it is decoded; a context variable carries the one
to the other, through whatever tasks an adapter makes of a stream.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from predictd.server.errors import OverloadedError

_client: ContextVar[str] = ContextVar("client", default="")
_UNCOUNTED: AbstractContextManager[None] = nullcontext()


def address(peer: str) -> str:
    """The address in what gRPC calls a peer: without the port, which differs between connections."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


class ClientLimit:
    """Counts requests in flight by client.

    Args:
        limit: Requests of one client; 0 counts nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight: Counter[str] = Counter()

    @property
    def limited(self) -> bool:
        """There is a limit."""
        return bool(self._limit)

    def check(self) -> None:
        """See whether the current call's client may have one more request. Raises OverloadedError if not."""
        if self._limit and self._count(_client.get()) >= self._limit:
            raise self._too_many()

    def request(self) -> AbstractContextManager[None]:
        """Have a request of the current call's client in flight.

        Raises:
            OverloadedError: When it begins: the client has as many as it may.
        """
        return self._counted() if self._limit else _UNCOUNTED

    @contextmanager
    def _counted(self) -> Iterator[None]:
        client = _client.get()
        if not self._enter(client):
            raise self._too_many()
        try:
            yield
        finally:
            self._leave(client)

    def _too_many(self) -> OverloadedError:
        return OverloadedError(
            f"this client has {self._limit} requests in flight, which is its limit (max_concurrent_per_client)",
            limit="client_limit",
        )

    # Who else has requests of the same clients counts them elsewhere.

    def _count(self, client: str) -> int:
        return self._in_flight[client]

    def _enter(self, client: str) -> bool:
        if self._in_flight[client] >= self._limit:
            return False
        self._in_flight[client] += 1
        return True

    def _leave(self, client: str) -> None:
        self._in_flight[client] -= 1
        if not self._in_flight[client]:
            del self._in_flight[client]


class Noting(grpc.aio.ServerInterceptor):
    """Has something noted of each call before its handler runs, in the handler's own context.

    Args:
        note: Called with the call's context.
    """

    def __init__(self, note: Callable[[Any], object]) -> None:
        self._note = note

    # typing.override needs Python 3.12.
    async def intercept_service(  # type: ignore[explicit-override]
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler for a call, made to note first."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        for kind in ("unary_unary", "stream_unary", "stream_stream"):
            if (handle := getattr(handler, kind)) is not None:
                return handler._replace(**{kind: self._noting(handle)})
        return handler

    def _noting(self, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def yield_noted(request: Any, context: Any) -> AsyncIterator[Any]:
            self._note(context)
            async for answer in handle(request, context):
                yield answer

        async def handle_noted(request: Any, context: Any) -> Any:
            self._note(context)
            return await handle(request, context)

        # gRPC tells by the function whether it yields its answers or writes them.
        return yield_noted if inspect.isasyncgenfunction(handle) else handle_noted


class ClientNames(Noting):
    """Notes for each call which client it is from."""

    def __init__(self) -> None:
        super().__init__(lambda context: _client.set(address(context.peer())))
