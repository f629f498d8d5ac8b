"""RepositoryModelLoad and RepositoryModelUnload of Triton's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnsupportedError
from predictd.server.frontend.apis.rpc import Context, Handler, parse, unary
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from predictd.server.frontend.control import Control

# Triton's names for what works here.
EXTENSIONS = ("model_repository", "model_repository(unload_dependents)", "logging")

Parameters: TypeAlias = Mapping[str, pb.ModelRepositoryParameter]


def methods(control: Control, statuses: StatusTable) -> dict[str, Handler]:
    """The two methods."""

    async def load(data: bytes, _: Context) -> bytes:
        request = parse(pb.RepositoryModelLoadRequest, data)
        refuse_repository(request.repository_name)
        await control.load(request.model_name, _config(request.parameters))
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def unload(data: bytes, _: Context) -> bytes:
        request = parse(pb.RepositoryModelUnloadRequest, data)
        refuse_repository(request.repository_name)
        _check_unload(request.parameters)
        await control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    return {
        "RepositoryModelLoad": unary(load, statuses),
        "RepositoryModelUnload": unary(unload, statuses),
    }


def refuse_repository(name: str) -> None:
    """Raise UnsupportedError if a repository is named."""
    if name:
        raise UnsupportedError("'repository_name' is not supported: repositories have no names")


def _config(parameters: Parameters) -> str:
    for name in parameters:
        if name.startswith("file:"):
            raise InvalidRequestError(f"parameter {name!r}: file override is not enabled")
        if name != "config":
            raise InvalidRequestError(f"unknown parameter {name!r} of a load")
    if "config" not in parameters:
        return ""
    _check_type("config", parameters["config"], "string_param")
    return parameters["config"].string_param


def _check_unload(parameters: Parameters) -> None:
    for name, parameter in parameters.items():
        if name != "unload_dependents":
            raise InvalidRequestError(f"unknown parameter {name!r} of an unload")
        # No model depends on another here, so there is nothing more to unload.
        _check_type(name, parameter, "bool_param")


def _check_type(name: str, parameter: pb.ModelRepositoryParameter, wanted: str) -> None:
    choice = parameter.WhichOneof("parameter_choice")
    if choice != wanted:
        raise InvalidRequestError(
            f"parameter {name!r} must be sent as {wanted}, not as {choice or 'nothing'}"
        )
