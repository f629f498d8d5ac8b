"""Server reflection: which services there are, and their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.rpc import Context, abort, parse, service
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

SERVICE = reflection.SERVICE_NAME
_STATUSES = StatusTable()


def handlers(services: Iterable[str]) -> grpc.GenericRpcHandler:
    """The service.

    Not by `reflection.enable_server_reflection`: that registers the method with the server besides, and grpc.aio then
    waits for two kinds of calls, which costs each call of every method two or three microseconds.

    Args:
        services: Names of those that the server has, reflection itself left out.
    """
    servicer = reflection.aio.ReflectionServicer((*services, SERVICE))

    async def info(_: object, context: Context) -> None:
        async def requests() -> AsyncIterator[pb.ServerReflectionRequest]:
            while isinstance(data := await context.read(), bytes):
                yield parse(pb.ServerReflectionRequest, data)

        try:
            async for answer in servicer.ServerReflectionInfo(requests(), context):
                await context.write(answer.SerializeToString())
        except InvalidRequestError as error:
            failure: InvalidRequestError = error
        else:
            return
        await abort(context, failure, _STATUSES)

    return service(SERVICE, {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info)})
