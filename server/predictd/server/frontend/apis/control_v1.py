"""predictd.v1.ControlService: load, unload and reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from predictd.protos.v1 import control_pb2 as pb
from predictd.server.frontend.apis.rpc import Context, parse, service, unary
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from predictd.server.frontend.control import Control

SERVICE = "predictd.v1.ControlService"
STATUSES = StatusTable()


def handlers(control: Control) -> grpc.GenericRpcHandler:
    """The service."""

    async def load(data: bytes, _: Context) -> bytes:
        request = parse(pb.LoadModelRequest, data)
        await control.load(request.model, request.config)
        return pb.LoadModelResponse().SerializeToString()

    async def unload(data: bytes, _: Context) -> bytes:
        await control.unload(parse(pb.UnloadModelRequest, data).model)
        return pb.UnloadModelResponse().SerializeToString()

    async def reload(data: bytes, _: Context) -> bytes:
        parse(pb.ReloadRequest, data)
        await control.reload()
        return pb.ReloadResponse().SerializeToString()

    return service(
        SERVICE,
        {
            "LoadModel": unary(load, STATUSES),
            "UnloadModel": unary(unload, STATUSES),
            "Reload": unary(reload, STATUSES),
        },
    )
