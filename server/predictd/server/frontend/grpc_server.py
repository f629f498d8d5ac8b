"""The gRPC server, of which one call cannot take the others with it.

grpc.aio decodes the path of each call in the loop that accepts all of them. One whose path is no UTF-8, which no
client library sends and anybody else can, ends that loop, and with it the server and every call that it has in hand
(seen with grpcio 1.85). Here what is in hand goes on, and somebody is told, who puts another server in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc.aio

# It has no stubs.
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_LOOK_SECONDS = 0.05

_log = logging.getLogger(__name__)


class _Serving(cygrpc.AioServer):  # type: ignore[misc]
    """grpc.aio's server below its surface."""

    deafened: Callable[[], None]

    async def _server_main_loop(self, started: Any) -> None:
        try:
            await super()._server_main_loop(started)
        except UnicodeDecodeError:
            _log.warning(
                "a client called a method whose name is no UTF-8; connections are asked to begin anew"
            )
            self.deafened()
            # Whoever stops the server waits for this.
            while self.is_running():  # noqa: ASYNC110 - gRPC has no event for it
                await asyncio.sleep(_LOOK_SECONDS)


def make_server(deafened: Callable[[], None], **arguments: Any) -> grpc.aio.Server:
    """A server.

    Args:
        deafened: Called when it takes no more calls. Those that it has taken go on, until it is stopped.
        arguments: Of `grpc.aio.server`.
    """
    usual = cygrpc.AioServer
    cygrpc.AioServer = _Serving
    try:
        server = grpc.aio.server(**arguments)
    finally:
        cygrpc.AioServer = usual
    server._server.deafened = deafened  # type: ignore[attr-defined]  # noqa: SLF001 - made so above
    return server
