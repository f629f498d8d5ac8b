"""How many requests one client may have at once, where that is limited: clients are told apart by their address.

The address is known where a call comes in, and a request only where it is decoded; a context variable carries the one
to the other, through whatever tasks an adapter makes of a stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from predictd.server.errors import OverloadedError

_client: ContextVar[str] = ContextVar("client", default="")


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
        if self._limit and self._in_flight[_client.get()] >= self._limit:
            raise OverloadedError(
                f"this client has {self._limit} requests in flight, which is its limit (max_concurrent_per_client)",
                limit="client_limit",
            )

    @contextmanager
    def request(self) -> Iterator[None]:
        """Have a request of the current call's client in flight.

        Raises:
            OverloadedError: It has as many as it may.
        """
        if not self._limit:
            yield
            return
        self.check()
        client = _client.get()
        self._in_flight[client] += 1
        try:
            yield
        finally:
            self._in_flight[client] -= 1
            if not self._in_flight[client]:
                del self._in_flight[client]


class ClientNames(grpc.aio.ServerInterceptor):
    """Notes for each call which client it is from."""

    # typing.override needs Python 3.12.
    async def intercept_service(  # type: ignore[explicit-override]
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler for a call, made to note the client first."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        for kind in ("unary_unary", "stream_unary", "stream_stream"):
            if (handle := getattr(handler, kind)) is not None:
                return handler._replace(**{kind: _noting(handle)})
        return handler


def _noting(handle: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle_noted(request: Any, context: Any) -> Any:
        _client.set(address(context.peer()))
        return await handle(request, context)

    return handle_noted
