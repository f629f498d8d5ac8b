"""The gRPC server of a front end, on its addresses; another one in its place where a call has deafened it."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from predictd.server.control.messages import FrontendInit
from predictd.server.frontend.clients import ClientNames
from predictd.server.frontend.connections import server_options
from predictd.server.frontend.grpc_server import make_server
from predictd.server.frontend.request_log import NotedCalls

# gRPC itself cancels requests by lot when more than so many wait for their handlers (its own default is 1,000).
# Ours refuses them in words, so that comes first.
PENDING_REQUESTS = 50_000
# What a server that was replaced has in hand may take so long.
REPLACED_SECONDS = 60.0
# Mode 0660 for what is made under it.
UNIX_UMASK = 0o117


class Servers:
    """The server that takes calls, and those before it that still have some in hand.

    Args:
        init: Of the front end.
        handler: Of all methods.
        credentials: Made for each port over TCP, where connections are encrypted.
        spawn: Runs what must not fail.
    """

    def __init__(
        self,
        init: FrontendInit,
        handler: grpc.GenericRpcHandler,
        credentials: Callable[[], grpc.ServerCredentials],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._init = init
        self._handler = handler
        self._credentials = credentials
        self._spawn = spawn
        self._server = self._make()
        self._replaced: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def open(self) -> None:
        """Take calls."""
        for address in self._init.addresses:
            if self._init.access.tls:
                self._server.add_secure_port(address, self._credentials())
            else:
                self._server.add_insecure_port(address)
        if self._init.unix:
            # Nobody else may connect, not even between bind and chmod.
            before = os.umask(UNIX_UMASK)
            try:
                self._server.add_insecure_port(f"unix:{self._init.unix}")
            finally:
                os.umask(before)
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, and wait for those in hand, those of servers that were replaced, too.

        Args:
            grace_seconds: How long they have.
        """
        self._stopped = True
        replaced = [asyncio.wait({stopping}, timeout=grace_seconds) for stopping in self._replaced]
        await asyncio.gather(self._server.stop(grace_seconds), *replaced)

    def _make(self) -> grpc.aio.Server:
        init, limit = self._init, self._init.max_message_bytes
        server = make_server(
            self._deafened,
            interceptors=[
                *([ClientNames()] if init.max_concurrent_per_client else ()),
                *(() if init.request_log.off else [NotedCalls()]),
            ],
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                *server_options(
                    init.connections,
                    resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                    len(init.addresses) + bool(init.unix),
                ),
                # Else a client may send as much as the line carries before anybody decided to read it: see gate.py.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.server.max_pending_requests", PENDING_REQUESTS),
                ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_REQUESTS),
            ],
        )
        server.add_generic_rpc_handlers((self._handler,))
        return server

    def _deafened(self) -> None:
        if not self._stopped:
            self._spawn(self._replace())

    async def _replace(self) -> None:
        """Have another server take new calls. The one before finishes what it has, and sends its clients over."""
        old, self._server = self._server, self._make()
        # In this order: who cannot connect for a moment tries again, who is cancelled does not.
        stopping = asyncio.create_task(old.stop(REPLACED_SECONDS))
        self._replaced.add(stopping)
        await asyncio.sleep(0)
        if not self._stopped:
            await self.open()
        await stopping
        self._replaced.discard(stopping)
