"""The gRPC server of a front end: what carries its connections, and where it listens."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

import grpc.aio

from predictd.server.access.material import Material
from predictd.server.control.messages import FrontendInit
from predictd.server.frontend import grpc_server
from predictd.server.frontend.clients import ClientNames
from predictd.server.frontend.connections import server_options
from predictd.server.frontend.fatal import or_exit
from predictd.server.frontend.native.server import NativeServer, load_native
from predictd.server.frontend.request_log import NotedCalls
from predictd.server.frontend.tls import ServerTls

# gRPC itself cancels requests by lot when more than so many wait for their handlers (its own default is 1,000).
# Ours refuses them in words, so that comes first.
PENDING_REQUESTS = 50_000
# Mode 0660 for what is made under it.
UNIX_UMASK = 0o117


def make_server(init: FrontendInit, deafened: Callable[[], None]) -> grpc.aio.Server | NativeServer:
    """A server without services that listens nowhere yet.

    Args:
        init: What the supervisor said.
        deafened: See `grpc_server.make_server`.
    """
    limit = init.max_message_bytes
    interceptors = [
        *([ClientNames()] if init.max_concurrent_per_client else ()),
        *(() if init.request_log.off else [NotedCalls()]),
    ]
    if init.native:
        return NativeServer(
            load_native(), init.connections, limit, init.unread_limit_bytes, interceptors, or_exit
        )
    return grpc_server.make_server(
        deafened,
        interceptors=interceptors,
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


def show_certificate(
    server: grpc.aio.Server | NativeServer, init: FrontendInit, tls: ServerTls, material: Material
) -> None:
    """Have those who connect from now on be shown a certificate."""
    if isinstance(server, NativeServer):
        client_ca = material.client_ca if init.access.client_certificates else b""
        server.use_certificate(material.certificate, material.key, client_ca)
    else:
        tls.take(material)


def open_ports(server: grpc.aio.Server | NativeServer, init: FrontendInit, tls: ServerTls) -> None:
    """Listen on all addresses, and on the unix socket if there is one."""
    for address in init.addresses:
        if not init.access.tls:
            server.add_insecure_port(address)
        elif isinstance(server, NativeServer):
            server.add_secure_port(address)
        else:
            server.add_secure_port(address, tls.credentials())
    if init.unix:
        # Nobody else may connect, not even between bind and chmod.
        before = os.umask(UNIX_UMASK)
        try:
            server.add_insecure_port(f"unix:{init.unix}")
        finally:
            os.umask(before)
