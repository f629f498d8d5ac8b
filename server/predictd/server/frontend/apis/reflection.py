"""Server reflection: which services there are, and their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_reflection.v1alpha import reflection

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc.aio

SERVICE = reflection.SERVICE_NAME


def enable(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Tell clients about services.

    Args:
        server: That serves them; not started yet.
        services: Names of those that it serves, reflection itself left out.
    """
    reflection.enable_server_reflection((*services, SERVICE), server)
