"""All methods of the server, each behind its rule. gRPC asks here, once a call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from typing_extensions import override

from predictd.server.access.methods import RULES, Rule
from predictd.server.errors import RequestError
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from predictd.server.frontend.access import Access

_STATUSES = StatusTable()


@dataclass(frozen=True, slots=True)
class _Details:
    """What a service is asked by."""

    method: str
    invocation_metadata: tuple[()] = ()


class Registry(grpc.GenericRpcHandler):
    """The methods that have a rule, of all services.

    Args:
        services: That have them. They read their requests themselves.
        access: Lets callers in.
        rules: Of all methods, by path.

    Raises:
        TypeError: A method has a rule and no service has it.
    """

    def __init__(
        self,
        services: Iterable[grpc.GenericRpcHandler],
        access: Access,
        rules: Mapping[str, Rule] = RULES,
    ) -> None:
        asked = tuple(services)
        self._handlers = {
            method: _guarded(_find(asked, method), rule, access) for method, rule in rules.items()
        }

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method."""
        return self._handlers.get(handler_call_details.method)


def _find(services: Iterable[grpc.GenericRpcHandler], method: str) -> Any:
    details: Any = _Details(method)
    for service in services:
        handler = service.service(details)
        if handler is not None:
            return handler
    raise TypeError(f"no service has {method}. This is a bug.")


def _guarded(handler: Any, rule: Rule, access: Access) -> Any:
    """A handler that lets callers in first, at the headers (see `Received`): what is refused is not received."""
    if not access.guards(rule):
        return handler
    if not handler.request_streaming:
        raise TypeError("a method receives its request before its caller is let in. This is a bug.")
    if handler.stream_unary is not None:
        return handler._replace(stream_unary=_once(handler.stream_unary, rule, access))
    behaviour = handler.stream_stream
    # gRPC tells by the function whether it writes to the context or yields.
    guard = _yielding if inspect.isasyncgenfunction(behaviour) else _once
    return handler._replace(stream_stream=guard(behaviour, rule, access))


def _once(
    behaviour: Callable[[Any, Any], Awaitable[Any]], rule: Rule, access: Access
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            access.admit(rule, context)
        except RequestError as error:
            refused = error.with_traceback(None)
        else:
            handling = behaviour(request, context)
            del request
            return await handling
        return await _end(context, refused)

    return handle


def _yielding(
    behaviour: Callable[[Any, Any], AsyncIterator[Any]], rule: Rule, access: Access
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            access.admit(rule, context)
        except RequestError as error:
            await _end(context, error)
        async for answer in behaviour(request, context):
            yield answer

    return handle


async def _end(context: Any, error: RequestError) -> None:
    failure = _STATUSES.failure(error)
    await context.abort(failure.code, failure.message, failure.trailers)
