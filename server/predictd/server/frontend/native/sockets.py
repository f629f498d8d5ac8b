"""Sockets that a front end listens on; the C half accepts from them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

_BACKLOG = 1024
_UNIX = "unix:"


def bind(address: str) -> list[socket.socket]:
    """Listen on every address that a name and port stand for, or on a path behind `unix:`.

    Raises:
        OSError: One of them cannot be had.
    """
    if address.startswith(_UNIX):
        return [_bind_path(Path(address.removeprefix(_UNIX)))]
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    try:
        bound.extend(_bind(family, target) for family, _, _, _, target in dict.fromkeys(found))
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound


def _bind(family: int, target: object) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # As gRPC has it: [::] takes IPv4, too.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(target)  # type: ignore[arg-type]
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _bind_path(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with suppress(FileNotFoundError):
            if path.is_socket():
                path.unlink()
        listening.bind(os.fspath(path))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
