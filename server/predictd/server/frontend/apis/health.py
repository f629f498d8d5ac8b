"""grpc.health.v1: the health of the server, of its services and of each model by name.

The servicer of grpcio-health-checking is not used: there, one of two watchers of a name that leaves silences
the other, and a watcher that does not read blocks every change of status, the shutdown too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2 as pb

from predictd.server.errors import UnknownModelError
from predictd.server.frontend.apis.rpc import Context, abort, parse, service, unary
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from predictd.server.frontend.core import Core

SERVICE = "grpc.health.v1.Health"
_STATUSES = StatusTable()
_HEALTH = {
    True: pb.HealthCheckResponse.SERVING,
    False: pb.HealthCheckResponse.NOT_SERVING,
    None: pb.HealthCheckResponse.SERVICE_UNKNOWN,
}


class Health:
    """What health clients are told. All calls are made on one event loop.

    Args:
        services: Names of the services that live and die with the server.
        sees: Whether the present call's caller may know of a model; others hear that there is none of its name.
    """

    def __init__(self, services: Iterable[str], sees: Callable[[str], bool] = lambda _: True) -> None:
        self._sees = sees
        self._services = ("", *services)
        self._serving: Mapping[str, bool] = dict.fromkeys(self._services, False)
        self._changed = asyncio.Event()
        self._shutting_down = False
        self._closed = False

    def update(self, core: Core) -> None:
        """Look at the core again. To be called when its models or its readiness may have changed."""
        if self._shutting_down:
            return
        models = {
            model.name: any(version.state == "READY" for version in model.versions) for model in core.models()
        }
        self._publish(models | dict.fromkeys(self._services, core.ready))

    def shut_down(self) -> None:
        """Report NOT_SERVING for everything, from now on and whatever the core says."""
        self._shutting_down = True
        self._publish(dict.fromkeys(self._serving, False))

    def close(self) -> None:
        """End all watches, which would otherwise hold up the server's graceful stop to its last moment."""
        self._closed = True
        self._wake()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service."""

        async def check(data: bytes, _: Context) -> bytes:
            name = parse(pb.HealthCheckRequest, data).service
            if name not in self._serving or not self._is_shown(name):
                raise UnknownModelError(f"there is no service or model {name!r}")
            return self._message(name)

        async def watch(data: bytes, context: Context) -> AsyncIterator[bytes]:
            try:
                name = parse(pb.HealthCheckRequest, data).service
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
                await abort(context, error, _STATUSES)
            told, closed = b"", False
            while not closed:
                # In this order: the end comes after the last status, also for a client that was reading the one before.
                closed, changed, message = self._closed, self._changed, self._message(name)
                if message != told:
                    yield message
                    told = message
                if not closed:
                    await changed.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

        return service(
            SERVICE,
            {
                "Check": unary(check, _STATUSES),
                "Watch": grpc.unary_stream_rpc_method_handler(watch),
            },
        )

    def _is_shown(self, name: str) -> bool:
        return name in self._services or self._sees(name)

    def _message(self, name: str) -> bytes:
        status = _HEALTH[self._serving.get(name) if self._is_shown(name) else None]
        return bytes(pb.HealthCheckResponse(status=status).SerializeToString())

    def _publish(self, serving: Mapping[str, bool]) -> None:
        if serving != self._serving:
            self._serving = serving
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
