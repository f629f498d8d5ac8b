"""Server reflection: which services there are, and their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from predictd.server.frontend.apis.rpc import service

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVICE = reflection.SERVICE_NAME


def handlers(services: Iterable[str]) -> grpc.GenericRpcHandler:
    """The service.

    Not by `reflection.enable_server_reflection`: that registers the method with the server besides, and grpc.aio then
    waits for two kinds of calls, which costs each call of every method two or three microseconds.

    Args:
        services: Names of those that the server has, reflection itself left out.
    """
    servicer = reflection.aio.ReflectionServicer((*services, SERVICE))
    return service(
        SERVICE,
        {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                request_deserializer=pb.ServerReflectionRequest.FromString,
                response_serializer=pb.ServerReflectionResponse.SerializeToString,
            )
        },
    )
