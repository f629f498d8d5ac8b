"""predictd.v1.RoutingService: labels and the split of the default, set at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from predictd.protos.v1 import routing_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.rpc import Context, parse, service, unary
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from predictd.server.frontend.changes import Changes

SERVICE = "predictd.v1.RoutingService"
STATUSES = StatusTable()


def handlers(changes: Changes) -> grpc.GenericRpcHandler:
    """The service."""

    async def set_label(data: bytes, _: Context) -> bytes:
        request = parse(pb.SetLabelRequest, data)
        change = request.WhichOneof("change")
        if change is None or (change == "remove" and not request.remove):
            raise InvalidRequestError("the request gives the label no version and does not remove it")
        version = request.version if change == "version" else None
        await changes.set_label(request.model, request.label, version, allow_unready=request.allow_unready)
        return pb.SetLabelResponse().SerializeToString()

    async def set_split(data: bytes, _: Context) -> bytes:
        request = parse(pb.SetSplitRequest, data)
        shares = [(share.version, share.percent) for share in request.shares]
        await changes.set_split(request.model, shares, allow_unready=request.allow_unready)
        return pb.SetSplitResponse().SerializeToString()

    return service(SERVICE, {"SetLabel": unary(set_label, STATUSES), "SetSplit": unary(set_split, STATUSES)})
