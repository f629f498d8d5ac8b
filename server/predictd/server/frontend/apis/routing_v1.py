"""predictd.v1.RoutingService: labels and the split of the default, set at run time."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import grpc

from predictd.protos.v1 import routing_pb2 as pb
from predictd.server.errors import ForbiddenError, InvalidRequestError
from predictd.server.frontend.apis.rpc import Context, parse, unary
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from predictd.server.frontend.changes import Changes

SERVICE = "predictd.v1.RoutingService"
STATUSES = StatusTable()


def refusal(addresses: Iterable[str], *, allow_control: bool = False) -> str:
    """Why nobody may change anything; empty where they may.

    Args:
        addresses: What the front end binds, `host:port` with literal addresses.
        allow_control: The daemon was told to take changes from wherever it listens.
    """
    if allow_control or all(_is_loopback(address) for address in addresses):
        return ""
    return "labels and splits can be changed only where the daemon listens on the loopback alone"


def handlers(changes: Changes, refused: str) -> grpc.GenericRpcHandler:
    """The service.

    Args:
        changes: Makes them.
        refused: Why not, as `refusal` says it.
    """

    async def set_label(data: bytes, _: Context) -> bytes:
        _check_allowed(refused)
        request = parse(pb.SetLabelRequest, data)
        change = request.WhichOneof("change")
        if change is None or (change == "remove" and not request.remove):
            raise InvalidRequestError("the request gives the label no version and does not remove it")
        version = request.version if change == "version" else None
        await changes.set_label(request.model, request.label, version, allow_unready=request.allow_unready)
        return pb.SetLabelResponse().SerializeToString()

    async def set_split(data: bytes, _: Context) -> bytes:
        _check_allowed(refused)
        request = parse(pb.SetSplitRequest, data)
        shares = [(share.version, share.percent) for share in request.shares]
        await changes.set_split(request.model, shares, allow_unready=request.allow_unready)
        return pb.SetSplitResponse().SerializeToString()

    return grpc.method_handlers_generic_handler(
        SERVICE, {"SetLabel": unary(set_label, STATUSES), "SetSplit": unary(set_split, STATUSES)}
    )


def _check_allowed(refused: str) -> None:
    if refused:
        raise ForbiddenError(refused)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
